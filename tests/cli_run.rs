//! The commands on real models, end to end through the binary.

mod cli_support;

use cli_support::{has, json, mcc, models, ok, run, shared, status, stderr, stdout};
use serde_json::Value;
use std::path::Path;

const MODELS: [&str; 4] = ["fm_lenet5", "fm_lenet5_int8_qdq", "fm_lenet5_a8w4_qdq", "fm_dscnn_a16w4_qdq"];

/// The backends whose tools are installed.
fn backends() -> Vec<&'static str> {
    let mut all = vec!["interp", "plan", "jit"];
    if has("cc") {
        all.push("c");
    }
    if has("arm-none-eabi-gcc") && has("qemu-system-arm") {
        all.push("qemu");
    }
    all
}

#[test]
fn every_backend_gives_the_stored_outputs() {
    for model in MODELS {
        for backend in backends() {
            let r = json(&format!("run {model}.onnx --backend {backend} --case {model}.npz --json"));
            assert_eq!(r["ok"], true, "{model} {backend}: {r}");
            assert_eq!(r["outputs"][0]["mismatches"], 0);
            assert_eq!(r["outputs"][0]["elements"], 10);
            assert_eq!(r["outputs"][0]["name"], "logits");
        }
    }
}

/// Threads and a cache, empty, filled and damaged, change no output; other backends have neither.
#[test]
fn sessions_have_threads_and_a_cache() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let line = format!("run fm_lenet5.onnx --backend jit --case fm_lenet5.npz --threads 2 --cache {}", cache.display());
    let first = ok(&line);
    let files: Vec<_> = std::fs::read_dir(&cache).unwrap().map(|f| f.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    assert_eq!(ok(&line), first);
    std::fs::write(&files[0], b"mccgraph").unwrap();
    assert_eq!(ok(&line), first);
    assert!(std::fs::metadata(&files[0]).unwrap().len() > 1000);
    assert_eq!(status(&run("run fm_lenet5.onnx --backend plan --case fm_lenet5.npz --threads 2")), 64);
    let r = json(&format!("bench fm_lenet5.onnx --threads 2 --runs 3 --json --cache {}", cache.display()));
    assert_eq!(r["threads"], 2);
    assert!(
        r["load_ms"].as_f64().unwrap() + r["session_ms"].as_f64().unwrap() <= r["compile_ms"].as_f64().unwrap() * 1.001
    );
}

#[test]
fn a_mismatch_is_shown_with_its_first_element() {
    let output = run("run fm_lenet5.onnx --backend interp --case fm_lenet5.npz --atol 0 --json");
    assert_eq!(status(&output), 3);
    let r: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(r["ok"], false);
    assert!(r["outputs"][0]["mismatches"].as_u64().unwrap() > 0);
    assert_eq!(r["outputs"][0]["first_wrong"]["index"].as_array().unwrap().len(), 2);
    assert!(stderr(&output).contains("error[E0905]: output \"logits\""), "{}", stderr(&output));
}

#[test]
fn written_outputs_serve_as_inputs_of_a_comparison() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("o.npz");
    let line = format!("run fm_lenet5.onnx --backend plan --case fm_lenet5.npz --outputs {}", path.display());
    assert!(ok(&line).contains("sha256:"));
    // The archive holds plain names, so it has no inputs of this model.
    let output = run(&format!("run fm_lenet5.onnx --backend plan --inputs {}", path.display()));
    assert_eq!(status(&output), 1);
    assert!(stderr(&output).contains("no array \"input\"; its arrays are logits"), "{}", stderr(&output));
}

#[test]
fn fast_requantisation_is_counted_and_all_executors_agree_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let line = |mode: &str| {
        let target = "--target cortex-m0plus --name net";
        json(&format!(
            "compile fm_lenet5_int8_qdq.onnx {target} --requant {mode} -o {} --json",
            folder.path().display()
        ))
    };
    assert!(line("exact")["report"]["requant"].is_null());
    let count = &line("fast")["report"]["requant"];
    assert_eq!((count["samples"].as_u64(), count["elements"].as_u64()), (Some(8), Some(80)));
    assert!(count["differing"].as_u64().unwrap() <= 40, "{count}");
    let source = std::fs::read_to_string(folder.path().join("net.c")).unwrap();
    assert!(source.contains("net_mul_high_round"), "nothing is rounded in integers");
    ok("validate fm_lenet5_int8_qdq.onnx --target generic-c --requant fast --samples 2");
}

#[test]
fn two_compilations_are_byte_identical() {
    for (model, target) in [("fm_lenet5", "cortex-m0"), ("fm_lenet5_int8_qdq", "stm32h7")] {
        let folder = tempfile::tempdir().unwrap();
        for to in ["a", "b"] {
            let out = folder.path().join(to);
            let threads = if to == "a" { "1" } else { "7" };
            let line = format!(
                "compile {model}.onnx --target {target} --name net --dump-passes {}/p -o {}",
                out.display(),
                out.display()
            );
            let output = mcc().args(line.split(' ')).env("RAYON_NUM_THREADS", threads).output().unwrap();
            assert_eq!(status(&output), 0, "{}", stderr(&output));
        }
        let files = listing(&folder.path().join("a"));
        assert!(files.iter().any(|f| f == "net.c") && files.iter().any(|f| f == "net.report.json"), "{files:?}");
        assert_eq!(files, listing(&folder.path().join("b")));
        let passes = listing(&folder.path().join("a/p"));
        assert!(passes.iter().any(|f| f == "00-import.mcc") && passes.iter().any(|f| f == "00-import.safetensors"));
        assert_eq!(passes, listing(&folder.path().join("b/p")));
        for file in files.iter().chain(passes.iter()).filter(|f| f.contains('.')) {
            let read = |to: &str| {
                let at = folder.path().join(to);
                std::fs::read(at.join(file)).or_else(|_| std::fs::read(at.join("p").join(file))).unwrap()
            };
            assert_eq!(read("a"), read("b"), "{file}");
        }
    }
}

/// The names in a folder, ascending.
fn listing(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn the_report_agrees_with_the_header() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    let r = json(&format!("compile fm_lenet5_int8_qdq.onnx --target stm32h7 -o {at} --name net --json"));
    let header = std::fs::read_to_string(folder.path().join("net.h")).unwrap();
    let report: Value = serde_json::from_slice(&std::fs::read(folder.path().join("net.report.json")).unwrap()).unwrap();
    assert_eq!(r["report"], report);
    let totals = &report["totals"];
    assert!(header.contains(&format!("#define NET_ARENA_BYTES {}\n", totals["arena_bytes"])));
    assert!(header.contains(&format!("#define NET_INPUT_0_OFFSET {}\n", report["inputs"][0]["offset"])));
    assert_eq!(totals["macs"], 416_520);
    let kernels = report["kernels"].as_array().unwrap();
    let sum = |key: &str| kernels.iter().map(|k| k[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum("macs"), 416_520);
    assert!(sum("weight_bytes") >= totals["weight_bytes"].as_u64().unwrap());
    assert!(totals["arena_bytes"].as_u64() >= totals["arena_bound_live_bytes"].as_u64());
    assert!(totals["peak_live_bytes"].as_u64() >= totals["arena_bound_live_bytes"].as_u64());
    assert!(totals["peak_live_bytes"].as_u64() <= totals["arena_bytes"].as_u64());
    assert!(r["passes"].as_array().unwrap().iter().any(|p| p["name"] == "integerise" && p["changed"] == true));
    let files = r["files"].as_array().unwrap();
    assert_eq!(files.len(), 3);
    for f in files {
        let bytes = std::fs::read(f["path"].as_str().unwrap()).unwrap();
        assert_eq!(f["bytes"], bytes.len());
        assert_eq!(f["sha256"].as_str().unwrap().len(), 64);
    }
}

#[test]
fn code_and_stack_are_measured_by_the_cross_compiler() {
    for (target, cc) in [("stm32h7", "arm-none-eabi-gcc"), ("esp32c3", "riscv64-unknown-elf-gcc")] {
        if !has(cc) {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        let r = json(&format!("compile fm_lenet5_int8_qdq.onnx --target {target} -o {at} --name net --json"));
        let (built, totals) = (&r["built"], &r["report"]["totals"]);
        assert!(built["compiler"].as_str().unwrap().starts_with(cc), "{built}");
        let bytes = |key: &str| built[key].as_u64().unwrap();
        assert_eq!(bytes("flash_bytes"), bytes("code_bytes") + totals["weight_bytes"].as_u64().unwrap());
        assert!((1_000..40_000).contains(&bytes("code_bytes")), "{built}");
        assert!((50..5_000).contains(&bytes("stack_bytes")), "{built}");
    }
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    assert!(json(&format!("compile fm_lenet5.onnx --target generic-c -o {at} --name net --json"))["built"].is_null());
}

#[test]
fn separate_inputs_and_outputs_are_outside_the_arena() {
    let arena = json("analyze fm_lenet5.onnx --target cortex-m4 --json");
    let separate = json("analyze fm_lenet5.onnx --target cortex-m4 --io separate --json");
    assert_eq!(separate["totals"]["io_bytes_outside_arena"], 28 * 28 * 4 + 40);
    assert_eq!(arena["totals"]["io_bytes_outside_arena"], 0);
    assert!(separate["inputs"][0]["offset"].is_null() && arena["inputs"][0]["offset"].is_u64());
    assert_eq!(arena["fits"], Value::Null);
    assert_eq!(json("analyze fm_lenet5.onnx --target stm32h743 --json")["fits"], true);
}

#[test]
fn all_executors_are_valid() {
    for (model, target) in MODELS.into_iter().flat_map(|m| [(m, "cortex-m7"), (m, "esp32c3")]) {
        let r = json(&format!("validate {model}.onnx --target {target} --samples 2 --json"));
        assert_eq!(r["ok"], true, "{r}");
        let executors = r["executors"].as_array().unwrap();
        assert_eq!(executors.len(), 4);
        for e in executors.iter().take(2) {
            assert_eq!(e["status"], "ok");
            assert!(e["nodes"].as_u64().unwrap() >= 7);
        }
        let tools = match target {
            "esp32c3" => ["riscv64-unknown-elf-gcc", "qemu-system-riscv32"],
            _ => ["arm-none-eabi-gcc", "qemu-system-arm"],
        };
        if tools.into_iter().all(has) && has("cc") {
            assert!(executors.iter().all(|e| e["status"] == "ok"), "{r}");
        }
        // Integer arithmetic is exact everywhere; the dequantised output too.
        if model == "fm_lenet5_int8_qdq" {
            assert!(executors.iter().all(|e| e["max_abs"] == 0.0), "{r}");
        }
    }
}

#[test]
fn choices_are_explained_and_can_be_overruled() {
    let model = "fm_lenet5_int8_qdq.onnx";
    let all = json(&format!("explain {model} --target cortex-m4 --json"));
    let kernels = all.as_array().unwrap();
    let first = kernels.iter().find(|k| k["alternatives"].as_array().unwrap().len() > 2).unwrap();
    let (node, chosen) = (first["origin"][0].as_str().unwrap(), first["implementation"].as_str().unwrap());
    assert_eq!(first["alternatives"][0]["verdict"], "chosen");
    let other = first["alternatives"][1]["implementation"].as_str().unwrap();
    assert_ne!(chosen, other);
    let text = ok(&format!("explain {model} {node} --target cortex-m4"));
    assert!(text.contains(chosen) && text.contains("do not take it on cortex-m4: "), "{text}");
    // Every choice gives the same bits.
    for implementation in [chosen, other, "nest"] {
        let forced = format!("--force {node}={implementation}");
        let now = json(&format!("explain {model} {node} --target cortex-m4 {forced} --json"));
        assert_eq!(now[0]["implementation"], implementation, "{now}");
        let r =
            json(&format!("run {model} --backend c --target cortex-m4 {forced} --case fm_lenet5_int8_qdq.npz --json"));
        assert_eq!(r["ok"], true, "{r}");
    }
    for (arguments, code) in [
        (format!("explain {model} nothing --target cortex-m4"), "E0405"),
        (format!("analyze {model} --target cortex-m4 --force nothing=nest"), "E0405"),
        (format!("analyze {model} --target cortex-m4 --force {node}=conv2d-f32"), "E0406"),
    ] {
        let output = run(&arguments);
        assert_eq!(status(&output), 64, "{arguments}");
        assert!(stderr(&output).starts_with(&format!("error[{code}]: ")), "{}", stderr(&output));
    }
}

#[test]
fn graphs_are_written_as_onnx() {
    let folder = tempfile::tempdir().unwrap();
    for model in MODELS {
        let path = folder.path().join(format!("{model}.onnx"));
        let path = path.display();
        ok(&format!("opt {model}.onnx --pass fold -o {path}"));
        let r = json(&format!("run {path} --backend plan --case {model}.npz --json"));
        assert_eq!(r["ok"], true, "{r}");
    }
    let path = folder.path().join("sums.onnx");
    let output = run(&format!("opt fm_lenet5_int8_qdq.onnx --pass fold,integerise -o {}", path.display()));
    assert_eq!(status(&output), 1);
    assert!(stderr(&output).starts_with("error[E0306]: node "), "{}", stderr(&output));
    assert!(!path.exists());
}

#[test]
fn graphs_in_the_text_form_are_models() {
    let folder = tempfile::tempdir().unwrap();
    for model in MODELS {
        let path = folder.path().join(format!("{model}.mcc"));
        let path = path.display();
        let written = ok(&format!("opt {model}.onnx -o {path}"));
        assert_eq!(written.lines().count(), 2, "{written}");
        assert_eq!(ok(&format!("opt {path}")), ok(&format!("opt {model}.onnx")));
        let r = json(&format!("run {path} --backend plan --case {model}.npz --json"));
        assert_eq!(r["ok"], true, "{r}");
        // Without its constants it is no model.
        std::fs::remove_file(folder.path().join(format!("{model}.safetensors"))).unwrap();
        let output = run(&format!("opt {path}"));
        assert_eq!(status(&output), 1);
        assert!(stderr(&output).starts_with("error[E0204]: line "), "{}", stderr(&output));
    }
    let output = run("opt fm_lenet5.onnx -o model.txt");
    assert_eq!(status(&output), 64);
    assert!(stderr(&output).contains("must end in .mcc or .onnx"), "{}", stderr(&output));
    let passes = ok("opt fm_lenet5_int8_qdq.onnx --pass fold,integerise");
    assert!(passes.contains("requant"), "{passes}");
    assert!(!ok("opt fm_lenet5_int8_qdq.onnx --pass fold").contains("requant"));
}

#[test]
fn lists_are_complete() {
    assert!(json("targets --json").as_array().unwrap().iter().any(|t| t["name"] == "stm32h7" && t["flash"] == 2097152));
    let ops = json("ops --json");
    assert!(ops["operators"].as_array().unwrap().iter().any(|o| o == "Conv"));
    assert!(ok("ops --markdown").contains("| [Conv](https://onnx.ai/onnx/operators/onnx__Conv.html) |"));
    let passes = json("passes --json");
    assert!(passes["passes"].as_array().unwrap().iter().any(|p| p["name"] == "egraph"));
    assert!(passes["rules"].as_array().unwrap().iter().any(|r| r["group"] == "layout"));
}

#[test]
fn bench_reports_times_and_memory() {
    let r = json("bench fm_lenet5_int8_qdq.onnx --runs 20 --json");
    let time = |key: &str| r[key].as_f64().unwrap();
    assert!(time("min_us") > 0.0 && time("min_us") <= time("median_us") && time("median_us") <= time("p95_us"));
    assert!(time("compile_ms") > 0.0 && time("arena_bytes") > 0.0);
    assert_eq!(r["runs"], 20);
}

#[test]
fn accuracy_on_fashion_mnist() {
    let Some(shared) = shared() else { return };
    let data = shared.join("data/fashion_mnist_test.npz");
    let line = |model: &str, backend: &str, limit: usize| {
        format!(
            "eval {model}.onnx --data {} --preprocess scale=1/255 --metric top1 --backend {backend} --limit {limit} --json",
            data.display()
        )
    };
    // ONNX Runtime: 88.57 % and 88.53 % of all 10,000.
    for (model, expected) in [("fm_lenet5", 0.8857), ("fm_lenet5_int8_qdq", 0.8853)] {
        let value = json(&line(model, "jit", 10_000))["value"].as_f64().unwrap();
        assert!((value - expected).abs() <= 0.001, "{model}: {value}");
    }
    // An integer model labels alike everywhere.
    let correct: Vec<Value> =
        ["jit", "plan", "c"].iter().map(|b| json(&line("fm_lenet5_int8_qdq", b, 100))["correct"].clone()).collect();
    assert!(correct.iter().all(|c| *c == correct[0]), "{correct:?}");
}

#[test]
fn anomalies_are_scored_by_windows() {
    let Some(shared) = shared() else { return };
    let at = shared.display();
    for model in ["mlperf_ad_float", "mlperf_ad_int8_qdq"] {
        let r = json(&format!(
            "eval {at}/models/{model}.onnx --data {at}/data/mlperf_ad01_40.npz --preprocess windows=5x128:mse --metric auc --json"
        ));
        assert!(r["value"].as_f64().unwrap() > 0.8, "{r}");
        assert_eq!(r["samples"], 40);
    }
}

/// Hostile or broken files: a coded error with exit code 1, in under a second, and nothing written.
#[test]
fn broken_models_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let model = std::fs::read(models().join("fm_lenet5.onnx")).unwrap();
    std::fs::write(at("empty.onnx"), b"").unwrap();
    std::fs::write(at("truncated.onnx"), &model[..model.len() / 2]).unwrap();
    std::fs::write(at("garbage.onnx"), model.iter().map(|b| b.wrapping_mul(167).wrapping_add(13)).collect::<Vec<_>>())
        .unwrap();
    std::fs::write(at("text.onnx"), "*/ int x; /*").unwrap();
    std::fs::write(at("garbage.mcc"), "graph @g(v0 \"x\": f32[1]) { v1 = */ int x; /*").unwrap();
    std::fs::write(at("bytes.mcc"), [0xff, 0xfe, 0]).unwrap();
    std::fs::create_dir(at("folder.onnx")).unwrap();
    let mut names = listing(folder.path());
    names.push("missing.onnx".into());
    for name in names {
        for command in ["compile", "run"] {
            let path = at(&name);
            let line = match command {
                "compile" => {
                    format!("compile {} --target stm32h7 -o {} --name net", path.display(), at("out").display())
                }
                _ => format!("run {} --backend jit --case fm_lenet5.npz", path.display()),
            };
            let output = run(&line);
            let text = stderr(&output);
            assert_eq!(status(&output), 1, "{name}: {text}");
            assert!(text.lines().any(|l| l.starts_with("error[E0")), "{name}: {text}");
            assert!(output.stdout.is_empty() && !at("out").exists(), "{name}");
        }
    }
}

#[test]
fn broken_data_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let case = std::fs::read(models().join("fm_lenet5.npz")).unwrap();
    std::fs::write(at("empty.npz"), b"").unwrap();
    std::fs::write(at("truncated.npz"), &case[..case.len() / 2]).unwrap();
    std::fs::write(at("garbage.npz"), "PK\x03\x04 and nothing more").unwrap();
    for name in ["empty.npz", "truncated.npz", "garbage.npz", "missing.npz"] {
        let output = run(&format!("run fm_lenet5.onnx --backend interp --case {}", at(name).display()));
        assert_eq!(status(&output), 1, "{name}: {}", stderr(&output));
        assert!(stderr(&output).contains("error[E090"), "{name}: {}", stderr(&output));
    }
}

#[test]
fn a_full_pipe_is_no_fault() {
    let mut child = mcc().args(["opt", "fm_lenet5.onnx"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
