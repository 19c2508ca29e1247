//! Runs the tests that are written in the text form: `tests/filetests/**/*.mcc`, and the samples of `docs/*.md`.
//!
//! A file starts with lines `// test COMMAND key=value ...`, one a command, then holds a graph:
//!
//! - `verify`: the graph parses and verifies. With `// error: TEXT` at the end of a line, or alone on the line above, it
//!   must be refused instead, with exactly these faults there.
//! - `print`: the graph is in the form that the printer writes.
//! - `run`: evaluator, plan interpreter, JIT and generated C agree on random inputs. Integers agree in every bit; floats
//!   within 1e-5 of the largest magnitude, which is what kernels that reorder a sum are held to.
//! - `opt pass=NAME[,NAME...]`: the graph after these passes.
//! - `opt rule=NAME`: the graph saturated under this one rule of the e-graph, in the form that the rule gave wherever it gave
//!   one. The rule must apply; every rule has such a file in `tests/filetests/rules`.
//! - `lower target=NAME [io=separate] [patch=off|STRIPS] [memory=NAME,...] [nests]`: the plan, with `nests` and its loop
//!   nests.
//! - `emit c target=NAME [io=separate]`: the C source.
//!
//! A command that makes text compares it with what follows the line `// expect:`, each line after `// `. `MCC_BLESS=1`
//! writes the file anew.

use mcc_backends::c::exec::{self, ExecError, Sample};
use mcc_backends::{c, jit, targets};
use mcc_ir::catalogue::Implementation;
use mcc_ir::graph::{Graph, Port};
use mcc_ir::target::Backend;
use mcc_ir::{DType, Error, Target, Tensor, TensorType, eval, plan, text, verify};
use mcc_passes::lower::{Io, Options, Patch, lower};
use mcc_passes::{PassCx, egraph, pass, pipeline};
use std::fs;
use std::path::{Path, PathBuf};

const EXPECT: &str = "// expect:\n";

/// What a command makes of a case: the text to compare, or nothing.
type Outcome = Result<Option<String>, String>;

type Command = fn(&Case, &Arguments) -> Outcome;

/// One small function a command.
const COMMANDS: &[(&str, Command)] =
    &[("verify", verify), ("print", print), ("run", run), ("opt", opt), ("lower", lower_for), ("emit", emit)];

/// A graph with the commands to run on it.
struct Case {
    /// The text before the expected output, header included, so that lines count as in the file.
    text: String,
    /// What follows `// expect:`, without the comment signs.
    expected: Option<String>,
}

struct Arguments(Vec<(String, String)>);

impl Arguments {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    fn required(&self, key: &str) -> Result<&str, String> {
        self.get(key).ok_or_else(|| format!("the command lacks {key}=..."))
    }
}

impl Case {
    fn new(text: &str) -> Case {
        match text.split_once(EXPECT) {
            None => Case { text: text.to_string(), expected: None },
            Some((body, expected)) => {
                let lines = expected.lines().map(|l| l.strip_prefix("// ").or(l.strip_prefix("//")).unwrap_or(l));
                let expected = lines.map(|l| format!("{l}\n")).collect();
                Case { text: body.to_string(), expected: Some(expected) }
            }
        }
    }

    fn commands(&self) -> Vec<(String, Arguments)> {
        let commands = self.text.lines().filter_map(|l| l.strip_prefix("// test "));
        let parse = |line: &str| {
            let mut words = line.split_whitespace();
            let name = words.next().unwrap_or("").to_string();
            let split = |w: &str| w.split_once('=').map_or((w.into(), String::new()), |(k, v)| (k.into(), v.into()));
            (name, Arguments(words.map(split).collect()))
        };
        commands.map(parse).collect()
    }

    fn graph(&self) -> Result<Graph, String> {
        let graph = text::parse(&self.text, &|_| None).map_err(|e| e.to_string())?;
        verify::verify(&graph).map_err(|e| e.to_string())?;
        Ok(graph)
    }

    /// The faults that the file expects, each with the line that it is on.
    fn errors(&self) -> Vec<(usize, String)> {
        let mut errors = vec![];
        for (i, line) in self.text.lines().enumerate() {
            if let Some((code, fault)) = line.split_once("// error: ") {
                errors.push((i + 1 + code.trim().is_empty() as usize, fault.trim().to_string()));
            }
        }
        errors
    }

    /// The line of a value that a fault of the verifier starts with, if it does.
    fn line_of(&self, fault: &str) -> Option<usize> {
        let value = fault.split_whitespace().next()?;
        self.text.lines().position(|l| l.trim_start().starts_with(&format!("{value} = "))).map(|i| i + 1)
    }
}

fn verify(case: &Case, _: &Arguments) -> Outcome {
    let found: Vec<(Option<usize>, String)> = match text::parse(&case.text, &|_| None) {
        Err(Error::Parse { line, reason, .. }) => vec![(Some(line), reason)],
        Err(e) => vec![(None, e.to_string())],
        Ok(graph) => match verify::verify(&graph) {
            Ok(()) => vec![],
            Err(Error::Verify(faults)) => faults.into_iter().map(|f| (case.line_of(&f), f)).collect(),
            Err(e) => vec![(None, e.to_string())],
        },
    };
    let mut expected = case.errors();
    for (line, fault) in found {
        let here = |(l, text): &(usize, String)| fault.contains(text) && line.is_none_or(|line| line == *l);
        match expected.iter().position(here) {
            Some(i) => drop(expected.remove(i)),
            None => return Err(format!("line {}: {fault}", line.map_or("?".into(), |l| l.to_string()))),
        }
    }
    match expected.first() {
        Some((line, text)) => Err(format!("line {line}: expected the error: {text}")),
        None => Ok(None),
    }
}

fn print(case: &Case, _: &Arguments) -> Outcome {
    let body: String = case.text.lines().filter(|l| !l.starts_with("//")).map(|l| format!("{l}\n")).collect();
    let printed = text::print(&case.graph()?);
    if printed == body { Ok(None) } else { Err(format!("prints as\n{}", difference(&body, &printed))) }
}

fn opt(case: &Case, arguments: &Arguments) -> Outcome {
    let mut graph = case.graph()?;
    let target = target(arguments.get("target").unwrap_or("host"))?;
    if let Some(name) = arguments.get("rule") {
        return match arguments.get("pass") {
            Some(_) => Err("takes pass=... or rule=..., not both".into()),
            None => Ok(Some(text::print(&by_rule(&graph, target, name)?))),
        };
    }
    for name in arguments.required("pass")?.split(',') {
        let pass = pipeline::find(name).map_err(|e| e.to_string())?;
        pass::run(pass, &mut graph, &PassCx::quiet(target)).map_err(|e| e.to_string())?;
    }
    Ok(Some(text::print(&graph)))
}

/// What one rule makes of a graph.
fn by_rule(graph: &Graph, target: &Target, name: &str) -> Result<Graph, String> {
    let rule = egraph::rules().into_iter().find(|r| r.name == name);
    let rule = rule.ok_or_else(|| format!("there is no rule {name}"))?;
    let (graph, report) = egraph::apply_alone(graph, target, rule).map_err(|e| e.to_string())?;
    if report.applications.iter().all(|(_, times)| *times == 0) {
        return Err(format!("the rule {name} does not apply"));
    }
    verify::verify(&graph).map_err(|e| e.to_string())?;
    Ok(graph)
}

fn lower_for(case: &Case, arguments: &Arguments) -> Outcome {
    let mut target = target(arguments.required("target")?)?.clone();
    let mut options = Options::from(ports(arguments)?);
    if let Some(names) = arguments.get("memory") {
        let names: Vec<String> = names.split(',').map(String::from).collect();
        (target, options.spread) = (target.with_ram(&names).map_err(|e| e.to_string())?, names.len() > 1);
    }
    options.patch = match arguments.get("patch") {
        None => Patch::Auto,
        Some("off") => Patch::Off,
        Some(n) => Patch::Strips(n.parse().map_err(|_| format!("patch={n} is unknown"))?),
    };
    let plan = lower(&case.graph()?, &target, catalogue(&target), options).map_err(|e| e.to_string())?;
    Ok(Some(if arguments.get("nests").is_some() { format!("{plan:#}") } else { plan::text::print(&plan) }))
}

fn ports(arguments: &Arguments) -> Result<Io, String> {
    match arguments.get("io") {
        None => Ok(Io::Arena),
        Some("separate") => Ok(Io::Separate),
        Some(other) => Err(format!("io={other} is unknown")),
    }
}

fn emit(case: &Case, arguments: &Arguments) -> Outcome {
    if arguments.get("c").is_none() {
        return Err("the backends that print text are: c".into());
    }
    let target = target(arguments.required("target")?)?;
    Ok(Some(emitted(&case.graph()?, target, ports(arguments)?)?.source))
}

/// The graph as C.
fn emitted(graph: &Graph, target: &Target, io: Io) -> Result<c::CSource, String> {
    let plan = lower(graph, target, c::CATALOGUE, io).map_err(|e| e.to_string())?;
    c::emit(&plan, target, &c::COptions { name: "model".into() }).map_err(|e| e.to_string())
}

fn run(case: &Case, _: &Arguments) -> Outcome {
    let graph = case.graph()?;
    let random = |(i, port): (usize, &Port), seed: u64| random(graph.ty(port.value), seed * 100 + i as u64);
    let samples: Vec<Vec<Tensor>> =
        (0..4).map(|seed| graph.inputs.iter().enumerate().map(|p| random(p, seed)).collect()).collect();
    let wanted: Vec<Vec<Tensor>> =
        samples.iter().map(|s| eval::run(&graph, s)).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    for (name, executor) in EXECUTORS {
        let Some(found) = executor(&graph, &samples).map_err(|e| format!("{name}: {e}"))? else { continue };
        if !found.iter().map(Vec::len).eq(wanted.iter().map(Vec::len)) {
            return Err(format!("{name}: gives another number of outputs"));
        }
        for (sample, (wanted, found)) in wanted.iter().zip(&found).enumerate() {
            for (port, (wanted, found)) in graph.outputs.iter().zip(wanted.iter().zip(found)) {
                agree(wanted, found).map_err(|e| format!("{name}, output {}, sample {sample}: {e}", port.name))?;
            }
        }
    }
    Ok(None)
}

/// The outputs of a graph for each sample of inputs; `None` where a tool is missing.
type Executor = fn(&Graph, &[Vec<Tensor>]) -> Result<Option<Vec<Vec<Tensor>>>, String>;

/// What has to agree with the evaluator.
const EXECUTORS: &[(&str, Executor)] = &[
    ("the plan interpreter", |graph, samples| interpret(graph, samples, Io::Arena)),
    ("the plan interpreter with separate ports", |graph, samples| interpret(graph, samples, Io::Separate)),
    ("the JIT on loop nests", |graph, samples| compiled(graph, samples, &[], Io::Arena)),
    ("the JIT with kernels", |graph, samples| compiled(graph, samples, mcc_runtime::CATALOGUE, Io::Separate)),
    ("generated C", generated),
    ("the graph exported to ONNX and imported", exported),
];

fn interpret(graph: &Graph, samples: &[Vec<Tensor>], io: Io) -> Result<Option<Vec<Vec<Tensor>>>, String> {
    let plan = lower(graph, target("host")?, &[], io).map_err(|e| e.to_string())?;
    Ok(Some(samples.iter().map(|s| plan::interp::run(&plan, s)).collect()))
}

fn compiled(
    graph: &Graph,
    samples: &[Vec<Tensor>],
    catalogue: &[Implementation],
    io: Io,
) -> Result<Option<Vec<Vec<Tensor>>>, String> {
    let plan = lower(graph, target("host")?, catalogue, io).map_err(|e| e.to_string())?;
    let mut session = jit::compile(&plan).map_err(|e| e.to_string())?;
    samples.iter().map(|s| session.run_tensors(s).map_err(|e| e.to_string())).collect::<Result<_, _>>().map(Some)
}

/// What ONNX cannot express is not compared: the exporter says so.
fn exported(graph: &Graph, samples: &[Vec<Tensor>]) -> Result<Option<Vec<Vec<Tensor>>>, String> {
    let model = match mcc::frontend::export(graph) {
        Err(e) if e.code() == mcc::frontend::code::EXPORT => return Ok(None),
        model => model.map_err(|e| e.to_string())?,
    };
    let imported = mcc::frontend::import_bytes(model, None, &Default::default()).map_err(|e| e.to_string())?;
    let outputs: Result<_, _> = samples.iter().map(|s| eval::run(&imported, s)).collect();
    outputs.map(Some).map_err(|e| e.to_string())
}

/// C by the host's compiler. Where there is none, nothing is compared, unless this is a CI run.
fn generated(graph: &Graph, samples: &[Vec<Tensor>]) -> Result<Option<Vec<Vec<Tensor>>>, String> {
    let c = emitted(graph, target("generic-c")?, Io::Arena)?;
    let bytes: Vec<Sample> = samples.iter().map(|s| s.iter().map(|t| t.bytes().to_vec()).collect()).collect();
    let found = match exec::run_host(&c, &bytes, exec::STRICT) {
        Err(ExecError::Missing { tool, .. }) if std::env::var_os("CI").is_none() => {
            eprintln!("SKIPPED: generated C is not run, {tool} is missing");
            return Ok(None);
        }
        found => found.map_err(|e| e.to_string())?,
    };
    let tensor = |(port, bytes): (&Port, Vec<u8>)| {
        Tensor::from_bytes(graph.ty(port.value).clone(), bytes).map_err(|e| e.to_string())
    };
    found
        .into_iter()
        .map(|sample| graph.outputs.iter().zip(sample).map(tensor).collect())
        .collect::<Result<_, _>>()
        .map(Some)
}

/// A tensor of typical values of its type.
fn random(ty: &TensorType, seed: u64) -> Tensor {
    let (lo, hi) = match ty.dtype {
        d if d.is_float() => (-4.0, 4.0),
        DType::I64 => (-9.0, 9.0),
        // Products of full-range 32-bit integers only wrap.
        DType::I32 => (-100_000.0, 100_000.0),
        d => d.int_range().map(|(lo, hi)| (lo as f64, hi as f64)).expect("an integer of at most 32 bits"),
    };
    text::random_tensor(ty, seed, lo, hi).expect("bounds of the type")
}

fn agree(wanted: &Tensor, found: &Tensor) -> Result<(), String> {
    if wanted.ty() != found.ty() {
        return Err(format!("is {}, not {}", found.ty(), wanted.ty()));
    }
    if !wanted.dtype().is_float() {
        let (a, b) = (wanted.to_i64(), found.to_i64());
        return match a.iter().zip(&b).position(|(a, b)| a != b) {
            Some(i) => Err(format!("element {i} is {}, not {}", b[i], a[i])),
            None => Ok(()),
        };
    }
    let (a, b) = (wanted.to_f64(), found.to_f64());
    let largest = a.iter().filter(|v| v.is_finite()).fold(0f64, |m, v| m.max(v.abs()));
    // A NaN agrees with a NaN, an infinity with itself.
    let close = |a: f64, b: f64| a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-5 * largest;
    match a.iter().zip(&b).position(|(a, b)| !close(*a, *b)) {
        Some(i) => Err(format!("element {i} is {}, not {}", b[i], a[i])),
        None => Ok(()),
    }
}

fn target(name: &str) -> Result<&'static Target, String> {
    targets::find(name).map_err(|e| e.to_string())
}

fn catalogue(target: &Target) -> &'static [Implementation] {
    match target.backend {
        Backend::C => c::CATALOGUE,
        Backend::Jit => mcc_runtime::CATALOGUE,
    }
}

/// The first line in which two texts differ.
fn difference(expected: &str, found: &str) -> String {
    let (mut a, mut b) = (expected.lines(), found.lines());
    for line in 1.. {
        match (a.next(), b.next()) {
            (None, None) => break,
            (x, y) if x == y => {}
            (x, y) => {
                return format!("line {line}\n  expected: {}\n  found:    {}", x.unwrap_or("-"), y.unwrap_or("-"));
            }
        }
    }
    "line ends or the last newline differ".into()
}

/// Runs every command of a text; gives the text to write where the case is to be blessed.
fn run_case(text: &str, bless: bool) -> Result<Option<String>, String> {
    let case = Case::new(text);
    let commands = case.commands();
    let mut made = None;
    for (name, arguments) in &commands {
        let command = COMMANDS.iter().find(|(n, _)| n == name).ok_or_else(|| format!("there is no command {name}"))?;
        let output = command.1(&case, arguments).map_err(|e| format!("{name}: {e}"))?;
        if output.is_some() && made.is_some() {
            return Err("two commands make text: write two files".into());
        }
        made = made.or(output.map(|o| (name, o)));
    }
    match (made, &case.expected) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err("no command makes text, but some is expected".into()),
        (Some((_, output)), Some(expected)) if output == *expected => Ok(None),
        (Some((_, output)), _) if bless => {
            let lines: String = output.lines().map(|l| format!("// {l}\n")).collect();
            Ok(Some(format!("{}{EXPECT}{lines}", case.text)))
        }
        (Some((name, output)), expected) => {
            let expected = expected.as_deref().unwrap_or("");
            Err(format!("{name}: {}\n  MCC_BLESS=1 accepts what was found", difference(expected, &output)))
        }
    }
}

fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).expect("a folder of tests").map(|e| e.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

fn report(failures: Vec<String>, count: usize) {
    assert!(failures.is_empty(), "{} of {count} failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn filetests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests");
    let bless = std::env::var_os("MCC_BLESS").is_some();
    let mut paths = vec![];
    files(&root, "mcc", &mut paths);
    let mut failures = vec![];
    for path in &paths {
        let text = fs::read_to_string(path).expect("a readable file");
        let shown = path.strip_prefix(&root).expect("inside the folder").display();
        if Case::new(&text).commands().is_empty() {
            failures.push(format!("{shown}: no line `// test COMMAND`"));
        }
        match run_case(&text, bless) {
            Ok(None) => {}
            Ok(Some(blessed)) => fs::write(path, blessed).expect("a writable file"),
            Err(e) => failures.push(format!("{shown}: {e}")),
        }
    }
    assert!(paths.len() > 10, "the filetests are missing");
    report(failures, paths.len());
}

/// A new rule comes with its filetest.
#[test]
fn every_rule_has_a_filetest() {
    let mut paths = vec![];
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests/rules"), "mcc", &mut paths);
    let mut tested = vec![];
    for path in &paths {
        let case = Case::new(&fs::read_to_string(path).expect("a readable file"));
        tested.extend(case.commands().iter().filter_map(|(_, a)| a.get("rule").map(str::to_string)));
    }
    let untested: Vec<&str> =
        egraph::rules().iter().map(|r| r.name).filter(|name| !tested.iter().any(|t| t == name)).collect();
    assert_eq!(untested, [""; 0], "rules without a file with `// test opt rule=NAME` in tests/filetests/rules");
}

/// Samples in the documentation, between fences of language `mcc`: they parse and verify, and their commands pass.
#[test]
fn documentation_samples() {
    let mut paths = vec![];
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs"), "md", &mut paths);
    let (mut failures, mut count) = (vec![], 0);
    for path in &paths {
        let text = fs::read_to_string(path).expect("a readable file");
        for (i, sample) in text.split("```mcc\n").skip(1).enumerate() {
            let sample = sample.split("```").next().expect("split gives one");
            count += 1;
            let commands = if sample.contains("// test ") { "" } else { "// test verify\n" };
            if let Err(e) = run_case(&format!("{commands}{sample}"), false) {
                failures.push(format!("{}: sample {}: {e}", path.display(), i + 1));
            }
        }
    }
    assert!(count > 0, "no samples in the documentation");
    report(failures, count);
}

/// The runner must be able to fail.
#[test]
fn wrong_cases_fail() {
    let graph = |body: &str| format!("graph @g(v0 \"x\": f32[2]) {{\n    {body}\n    return v1 \"y\"\n}}\n");
    let relu = graph("v1 = relu v0 : f32[2]");
    for (text, reason) in [
        (format!("// test frob\n{relu}"), "there is no command frob"),
        (format!("// test verify\n{}", graph("v1 = relu v2")), "line 3: v2 is not defined"),
        (format!("// test verify\n{}", graph("v1 = relu v0 // error: bad")), "expected the error: bad"),
        (format!("// test verify\n{}", graph("v1 = relu v2 // error: bad")), "line 3: v2 is not defined"),
        (format!("// test verify\n// error: v2 is\n{}", graph("v1 = relu v2")), "line 4: v2 is not defined"),
        (format!("// test print\n{}", graph("v1 = relu v0")), "found:        v1 = relu v0 : f32[2]"),
        (format!("// test opt pass=frob\n{relu}"), "no pass named frob"),
        (format!("// test opt\n{relu}"), "lacks pass="),
        (format!("// test opt rule=frob\n{relu}"), "there is no rule frob"),
        (format!("// test opt rule=commute\n{relu}"), "the rule commute does not apply"),
        (format!("// test opt rule=commute pass=fold\n{relu}"), "not both"),
        (format!("// test opt pass=fold\n{relu}"), "expected: -"),
        (format!("// test opt pass=fold\n{relu}// expect:\n// graph\n"), "expected: graph"),
        (format!("// test verify\n{relu}// expect:\n// graph\n"), "no command makes text"),
        (format!("// test emit wasm target=host\n{relu}"), "the backends that print text are"),
        (format!("// test lower target=pdp11\n{relu}"), "there is no target `pdp11`"),
    ] {
        let e = run_case(&text, false).expect_err(&text);
        assert!(e.contains(reason), "{e}\ninstead of: {reason}");
    }
    for text in [
        format!("// test verify\n{relu}"),
        format!("// test print\n{relu}"),
        format!("// test verify\n{}", graph("v1 = relu v2 // error: v2 is not defined")),
        format!("// test verify\n{}", graph("// error: v2 is not defined\n    v1 = relu v2")),
        format!(
            "// test opt pass=fold\n{relu}{EXPECT}{}",
            relu.lines().map(|l| format!("// {l}\n")).collect::<String>()
        ),
    ] {
        assert_eq!(run_case(&text, false), Ok(None), "{text}");
    }
    let one = Tensor::new([2], &[1.0f32, 2.0]);
    assert!(agree(&one, &Tensor::new([2], &[1.0f32, 2.0001])).is_err());
    assert!(agree(&one, &Tensor::new([2], &[1.0f32, f32::NAN])).is_err());
    assert!(agree(&one, &Tensor::new([2], &[1.0f32, 2.000_01])).is_ok());
    assert!(agree(&Tensor::new([1], &[1i8]), &Tensor::new([1], &[2i8])).is_err());
}
