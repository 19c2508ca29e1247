//! tract with one model, for host-bench.py, in the way of peer.py. One thread.

use std::io::BufRead;
use std::sync::Arc;
use std::time::Instant;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::Factoid;
use tract_onnx::tract_hir::internal::DimLike;

/// The model, and inputs for it. Shapes are those given as NAME=SIZE,SIZE,..., else symbolic dimensions are 1.
fn load(path: &str, given: &[String]) -> TractResult<(Arc<TypedRunnableModel>, TVec<TValue>)> {
    let mut model = tract_onnx::onnx().model_for_path(path)?;
    let mut inputs = tvec![];
    for i in 0..model.input_outlets()?.len() {
        let fact = model.input_fact(i)?.clone();
        let dtype = fact.datum_type.concretize().unwrap_or(DatumType::F32);
        let dims = fact.shape.dims().map(|d| d.concretize().and_then(|d| d.to_usize().ok()).unwrap_or(1));
        let mut shape: TVec<usize> = dims.collect();
        let name = &model.node(model.input_outlets()?[i].node).name;
        for (_, sizes) in given.iter().filter_map(|g| g.rsplit_once('=')).filter(|(n, _)| n == name) {
            shape = sizes.split(',').map(str::parse).collect::<Result<_, _>>()?;
        }
        model.set_input_fact(i, InferenceFact::dt_shape(dtype, shape.clone()))?;
        let elements: usize = shape.iter().product();
        let values: Vec<f32> = (0..elements).map(|i| (i * 7919 % 997) as f32 / 997.0).collect();
        inputs.push(Tensor::from_shape(&shape, &values)?.cast_to_dt(dtype)?.into_owned().into_tvalue());
    }
    Ok((model.into_optimized()?.into_runnable()?, inputs))
}

fn main() -> TractResult<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, _threads, shapes @ ..] = args.as_slice() else {
        return Err(TractError::msg("usage: MODEL.onnx THREADS [NAME=SIZE,SIZE,...]..."));
    };
    let start = Instant::now();
    let (model, inputs) = load(path, shapes)?;
    let load_us = start.elapsed().as_secs_f64() * 1e6;
    for _ in 0..10 {
        model.run(inputs.clone())?;
    }
    println!("{{\"load_us\": {load_us}}}");
    for line in std::io::stdin().lock().lines() {
        let mut times = vec![];
        for _ in 0..line?.trim().parse::<usize>()? {
            let start = Instant::now();
            model.run(inputs.clone())?;
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        println!("{times:?}");
    }
    Ok(())
}
