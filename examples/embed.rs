//! Compiles a model for this machine and runs it: `cargo run --release --example embed [MODEL.onnx]`.

use mcc::ir::DType;
use mcc::{Options, TensorMut, TensorRef};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "tests/models/fm_lenet5.onnx".into());
    let mut session = mcc::compile_file(path, &Options::host())?;
    for port in session.inputs().iter().chain(session.outputs()) {
        println!("{}: {}", port.name, port.ty);
    }
    println!("arena {} bytes, weights {} bytes", session.arena_bytes(), session.weights_bytes());

    let (input, output) = (session.inputs()[0].ty.clone(), session.outputs()[0].ty.clone());
    if (input.dtype, output.dtype) != (DType::F32, DType::F32) || session.inputs().len() + session.outputs().len() != 2
    {
        return Err("this example feeds models of one f32 input and one f32 output".into());
    }
    // A gradient from black to white; a real program has a sensor here.
    let image: Vec<f32> = (0..input.elements()).map(|i| i as f32 / input.elements() as f32).collect();
    let mut scores = vec![0f32; output.elements()];
    session.run(&[TensorRef::from(image.as_slice())], &mut [TensorMut::from(scores.as_mut_slice())])?;
    println!("{scores:?}");
    Ok(())
}
