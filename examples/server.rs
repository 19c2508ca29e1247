//! An HTTP server with one session for each worker: `cargo run --release --example server -- [MODEL.onnx [ADDRESS]]`.
//!
//!     curl --data-binary @input.f32 http://127.0.0.1:8080/infer
//!
//! The body is the input, raw floats in little-endian order; the answer is a JSON array. Without an address the server
//! takes a free port, asks itself a few hundred times, and ends.
//!
//! A session is `Send` and not `Sync`. So each worker owns one, and a connection goes to the worker that is free: no lock
//! is held while a model runs. With an async framework it is the same: the handler sends the body and a oneshot channel
//! to such workers, so that inference never blocks the executor's threads.

use mcc::ir::DType;
use mcc::{Model, Options, Session};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const WORKERS: usize = 2;
/// Connections that wait; further ones wait in the operating system.
const QUEUE: usize = 64;
const MAX_HEAD: u64 = 16 * 1024;
const TIMEOUT: Duration = Duration::from_secs(5);

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_else(|| "tests/models/fm_lenet5.onnx".into());
    let address = args.next();
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0"))?;
    let here = listener.local_addr()?;

    // Import and passes are done once; each session is compiled from the same model.
    let model = Model::load(path, &Options::host())?;
    let (sender, receiver) = mpsc::sync_channel::<TcpStream>(QUEUE);
    let receiver = Arc::new(Mutex::new(receiver));
    let mut sizes = (0, 0);
    for number in 0..WORKERS {
        let session = model.session()?;
        let [input, output] = [session.inputs(), session.outputs()].map(|ports| match ports {
            [port] if port.ty.dtype == DType::F32 => Ok(port.ty.elements()),
            _ => Err("this example feeds models of one f32 input and one f32 output"),
        });
        sizes = (input?, output?);
        let receiver = Arc::clone(&receiver);
        let worker = Worker { session, input: vec![0.0; sizes.0], output: vec![0.0; sizes.1] };
        std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || worker.serve(&receiver))?;
    }
    println!("http://{here}/infer: {} floats in, {} out, {WORKERS} workers", sizes.0, sizes.1);
    let accept = move || {
        for connection in listener.incoming().flatten() {
            if sender.send(connection).is_err() {
                break;
            }
        }
    };
    if address.is_some() {
        accept();
        return Ok(());
    }
    std::thread::spawn(accept);
    try_out(&here.to_string(), sizes.0)
}

/// A session with buffers for its tensors: once it runs, a request allocates nothing for inference.
struct Worker {
    session: Session,
    input: Vec<f32>,
    output: Vec<f32>,
}

impl Worker {
    /// Takes connections until there are none.
    fn serve(mut self, connections: &Mutex<mpsc::Receiver<TcpStream>>) {
        loop {
            // The lock is held while waiting for a connection, not while answering it.
            let Ok(connection) = connections.lock().expect("no worker panics while it waits").recv() else { return };
            if let Err(e) = self.answer(connection) {
                eprintln!("{}: {e}", std::thread::current().name().unwrap_or("worker"));
            }
        }
    }

    fn answer(&mut self, mut connection: TcpStream) -> Result<()> {
        connection.set_read_timeout(Some(TIMEOUT))?;
        connection.set_write_timeout(Some(TIMEOUT))?;
        let mut reader = BufReader::new(connection.try_clone()?);
        let (status, body) = match self.infer(&mut reader) {
            Ok(scores) => ("200 OK", scores),
            Err(reason) => ("400 Bad Request", format!("{{\"error\": {:?}}}", reason.to_string())),
        };
        let length = body.len();
        write!(
            connection,
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )?;
        Ok(())
    }

    fn infer(&mut self, reader: &mut impl BufRead) -> Result<String> {
        let bytes = self.input.len() * size_of::<f32>();
        if read_head(reader)? != bytes {
            return Err(format!("the body has to be {bytes} bytes").into());
        }
        let mut element = [0; size_of::<f32>()];
        for value in &mut self.input {
            reader.read_exact(&mut element)?;
            *value = f32::from_le_bytes(element);
        }
        self.session.run(&[(&self.input).into()], &mut [(&mut self.output).into()])?;
        // JSON has no infinities and no NaN.
        let number = |v: &f32| if v.is_finite() { v.to_string() } else { "null".into() };
        Ok(format!("[{}]", self.output.iter().map(number).collect::<Vec<_>>().join(", ")))
    }
}

/// Reads a request up to its body, whose length is returned.
fn read_head(reader: &mut impl BufRead) -> Result<usize> {
    let mut head = reader.take(MAX_HEAD);
    let (mut line, mut length) = (String::new(), None);
    head.read_line(&mut line)?;
    if !line.starts_with("POST /infer ") {
        return Err("only POST /infer is there".into());
    }
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Err("the request ends in its head".into());
        }
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = Some(value.trim().parse()?),
            Some(_) => {}
            None if line.trim_end().is_empty() => return length.ok_or_else(|| "Content-Length is missing".into()),
            None => return Err("a header without a colon".into()),
        }
    }
}

/// Sends requests from two threads, and holds all answers against the first.
fn try_out(address: &str, input: usize) -> Result<()> {
    const EACH: usize = 100;
    let image: Vec<u8> = (0..input).flat_map(|i| (i as f32 / input as f32).to_le_bytes()).collect();
    let ask = |body: &[u8]| -> Result<String> {
        let mut connection = TcpStream::connect(address)?;
        write!(connection, "POST /infer HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n", body.len())?;
        connection.write_all(body)?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let first = ask(&image)?;
    let scores = first.split("\r\n\r\n").nth(1).unwrap_or_default();
    if !first.starts_with("HTTP/1.1 200 OK\r\n") {
        return Err(first.into());
    }
    println!("{scores}");
    let start = Instant::now();
    let client =
        || (0..EACH).try_for_each(|_| if ask(&image)? == first { Ok(()) } else { Err("an answer differs".into()) });
    std::thread::scope(|scope| -> Result<()> {
        let clients = [scope.spawn(client), scope.spawn(client)];
        clients.into_iter().try_for_each(|c| c.join().map_err(|_| "a client panicked")?)
    })?;
    let each = start.elapsed() / (2 * EACH as u32);
    println!("{} requests, {each:?} each, connection included", 2 * EACH);
    let refused = ask(b"")?;
    println!("an empty body: {}", refused.lines().next().unwrap_or_default());
    Ok(())
}
