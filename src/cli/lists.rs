//! `mcc targets`, `mcc ops` and `mcc passes`: what there is.

use super::{costs, output};
use mcc::Result;
use mcc::backends::targets;
use mcc::frontend::{NEWEST_OPSET, OLDEST_OPSET, supported_operators};
use mcc::ir::target::{Backend, Feature};
use mcc::passes::{Class, egraph, pipeline};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// List the targets that models can be compiled for.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mcc targets\n  mcc targets --fit backends/costs/cortex-m4.csv -o backends/costs/cortex-m4.toml\n  mcc targets --fit backends/costs/cortex-m4.csv --rows ic_"
)]
pub struct TargetsArgs {
    /// Write the C of these layers by each implementation, to be measured, into the folder of -o
    #[arg(long, value_name = "LAYERS.mcc", requires = "output", requires = "target")]
    layers: Option<PathBuf>,
    /// Target of the layers
    #[arg(long, requires = "layers")]
    target: Option<String>,
    /// Fit the cost table of a core to this data set; layers.mcc lies beside it
    #[arg(long, value_name = "DATA.csv", conflicts_with = "layers")]
    fit: Option<PathBuf>,
    /// Print what the table predicts for the layers of models, or for those whose names begin like this
    #[arg(long, value_name = "BEGIN", requires = "fit", num_args = 0..=1, default_missing_value = "")]
    rows: Option<String>,
    /// Folder of the C, or file of the table
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct TargetRow {
    name: String,
    aliases: Vec<String>,
    description: String,
    backend: &'static str,
    core: String,
    features: Vec<&'static str>,
    flash: Option<usize>,
    ram: Option<usize>,
    mhz: Option<f64>,
    alignment: usize,
}

pub fn targets(args: &TargetsArgs) -> Result<()> {
    if let (Some(layers), Some(target), Some(output)) = (&args.layers, &args.target, &args.output) {
        return costs::sources(layers, target, output);
    }
    if let Some(data) = &args.fit {
        return costs::fit(data, args.output.as_deref(), args.rows.as_deref(), args.json);
    }
    let feature = |f: &Feature| match f {
        Feature::Dsp => "dsp",
        Feature::Fpu => "fpu",
        Feature::Mve => "mve",
    };
    let rows: Vec<TargetRow> = targets::all()
        .iter()
        .map(|t| TargetRow {
            name: t.name.clone(),
            aliases: t.aliases.clone(),
            description: t.description.clone(),
            backend: match t.backend {
                Backend::C => "c",
                Backend::Jit => "jit",
            },
            core: t.core.clone(),
            features: t.features.iter().map(feature).collect(),
            flash: t.flash,
            ram: t.ram,
            mhz: t.mhz,
            alignment: t.alignment,
        })
        .collect();
    if args.json {
        return output::print_json(&rows);
    }
    let line = |t: &TargetRow| {
        let names = [vec![t.name.clone()], t.aliases.clone()].concat().join(", ");
        vec![names, t.backend.to_string(), t.core.clone(), t.features.join(" "), t.description.clone()]
    };
    output::print(&output::table(
        &["target", "backend", "core", "features", ""],
        &rows.iter().map(line).collect::<Vec<_>>(),
    ))
}

/// List the ONNX operators that models may use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mcc ops --markdown")]
pub struct OpsArgs {
    /// Print as JSON
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print as a Markdown table
    #[arg(long)]
    markdown: bool,
}

#[derive(Serialize)]
struct Ops {
    oldest_opset: i64,
    newest_opset: i64,
    operators: Vec<&'static str>,
}

pub fn ops(args: &OpsArgs) -> Result<()> {
    let operators: Vec<&str> = supported_operators().collect();
    let head = format!("{} operators of the standard domain, opsets {OLDEST_OPSET} to {NEWEST_OPSET}", operators.len());
    if args.json {
        let ops = Ops { oldest_opset: OLDEST_OPSET, newest_opset: NEWEST_OPSET, operators };
        return output::print_json(&ops);
    }
    if args.markdown {
        let link = |op: &&str| format!("| [{op}](https://onnx.ai/onnx/operators/onnx__{op}.html) |\n");
        return output::print(&format!(
            "{head}:\n\n| operator |\n|---|\n{}",
            operators.iter().map(link).collect::<String>()
        ));
    }
    output::print(&format!("{}\n{head}\n", operators.join("\n")))
}

/// List the passes of the compiler and the rules of its e-graph.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mcc passes")]
pub struct PassesArgs {
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Passes {
    passes: Vec<PassRow>,
    rules: Vec<RuleRow>,
}

#[derive(Serialize)]
struct PassRow {
    name: &'static str,
    class: &'static str,
    summary: &'static str,
}

#[derive(Serialize)]
struct RuleRow {
    name: &'static str,
    group: &'static str,
    class: &'static str,
}

pub fn passes(args: &PassesArgs) -> Result<()> {
    let class = |c: Class| match c {
        Class::Exact => "exact",
        Class::Reassociates => "reassociates",
        Class::Lossy => "lossy",
    };
    let passes: Vec<PassRow> = pipeline::PASSES
        .iter()
        .map(|p| PassRow { name: p.name(), class: class(p.class()), summary: p.summary() })
        .collect();
    let rules: Vec<RuleRow> =
        egraph::rules().iter().map(|r| RuleRow { name: r.name, group: r.group, class: class(r.class) }).collect();
    if args.json {
        return output::print_json(&Passes { passes, rules });
    }
    let rows: Vec<Vec<String>> =
        passes.iter().map(|p| vec![p.name.to_string(), p.class.to_string(), p.summary.to_string()]).collect();
    let mut text = output::table(&["pass", "class", ""], &rows);
    let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for r in &rules {
        groups.entry(r.group).or_default().push(if r.class == "exact" {
            r.name.to_string()
        } else {
            format!("{} ({})", r.name, r.class)
        });
    }
    text += "\nrules of the e-graph; exact where nothing is said\n";
    for (group, names) in groups {
        text += &format!("  {group}: {}\n", names.join(", "));
    }
    output::print(&text)
}
