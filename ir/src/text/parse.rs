//! Reads graphs in the text form: recursive descent over the tokens.

use super::attrs::{Item, Value, finite_or_spelled, nan};
use super::lex::{Position, Token, lex};
use super::{GENERATED_ELEMENTS, integers, ops, random_tensor};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, Origin, ValueId};
use crate::op::Op;
use crate::ops::MAX_ELEMENTS;
use crate::tensor::Tensor;
use crate::types::{F32, QuantParams, Shape, TensorType};
use half::{bf16, f16};
use std::collections::HashMap;
use std::sync::Arc;

/// How deeply lists and arguments may nest.
const MAX_DEPTH: usize = 16;

/// The graph that a text describes. `resolve` gives the constant with a hash of [`Tensor::sha256`].
///
/// # Errors
/// [`Error::Parse`] with the position of the first fault: of the text itself, of a constant that is not at hand or does
/// not match its hash or type, of an operator that does not accept its inputs, and of a type that is not the one inferred.
pub fn parse(text: &str, resolve: &dyn Fn(&str) -> Option<Tensor>) -> Result<Graph> {
    let mut parser = Parser::new(text, resolve)?;
    parser.graph()?;
    Ok(parser.graph)
}

/// The operator of a line without operands, whether or not it has a type.
#[cfg(test)]
pub(super) fn parse_op(text: &str) -> Result<Op> {
    let mut parser = Parser::new(text, &|_| None)?;
    let (op, _) = parser.operator()?;
    if *parser.peek() == Token::End { Ok(op) } else { parser.expected("the end of the text") }
}

struct Parser<'a> {
    tokens: Vec<(Token, Position)>,
    /// The index of the next token; never beyond the last, which is [`Token::End`].
    next: usize,
    resolve: &'a dyn Fn(&str) -> Option<Tensor>,
    graph: Graph,
    names: HashMap<String, ValueId>,
    /// Elements made by `splat` and `rand` so far.
    generated: usize,
    depth: usize,
}

impl Parser<'_> {
    fn new<'a>(text: &str, resolve: &'a dyn Fn(&str) -> Option<Tensor>) -> Result<Parser<'a>> {
        let (graph, names) = (Graph::default(), HashMap::new());
        Ok(Parser { tokens: lex(text)?, next: 0, resolve, graph, names, generated: 0, depth: 0 })
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.next].0
    }

    fn at(&self) -> Position {
        self.tokens[self.next].1
    }

    fn bump(&mut self) -> Token {
        let token = self.peek().clone();
        if self.next + 1 < self.tokens.len() {
            self.next += 1;
        }
        token
    }

    fn expected<T>(&self, what: &str) -> Result<T> {
        Err(self.at().error(format!("expected {what}, found {}", self.peek().describe())))
    }

    fn eat(&mut self, sign: char) -> bool {
        let found = *self.peek() == Token::Sign(sign);
        if found {
            self.bump();
        }
        found
    }

    fn sign(&mut self, sign: char) -> Result<()> {
        if self.eat(sign) { Ok(()) } else { self.expected(&format!("`{sign}`")) }
    }

    fn word(&mut self, what: &str) -> Result<String> {
        match self.peek() {
            Token::Word(w) => {
                let w = w.clone();
                self.bump();
                Ok(w)
            }
            _ => self.expected(what),
        }
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Token::Word(w) if w == word);
        if found {
            self.bump();
        }
        found
    }

    fn graph(&mut self) -> Result<()> {
        if !self.eat_word("graph") {
            return self.expected("`graph @name(...)`");
        }
        self.sign('@')?;
        self.graph.name = match self.peek().clone() {
            Token::Word(name) | Token::Text(name) => name,
            _ => return self.expected("the graph's name"),
        };
        self.bump();
        self.sign('(')?;
        if !self.eat(')') {
            loop {
                self.input()?;
                if !self.eat(',') {
                    break;
                }
            }
            self.sign(')')?;
        }
        self.sign('{')?;
        while !self.eat_word("return") {
            self.statement()?;
        }
        while *self.peek() != Token::Sign('}') {
            self.output()?;
            if !self.eat(',') {
                break;
            }
        }
        self.sign('}')?;
        if *self.peek() == Token::End { Ok(()) } else { self.expected("the end of the text") }
    }

    /// `v0 "name": f32[2] quant(0.1, 3)`
    fn input(&mut self) -> Result<()> {
        let (value, at) = self.new_name()?;
        let name = self.port_name(&value);
        self.sign(':')?;
        let ty = self.tensor_type()?;
        let quant = self.quant()?;
        let id = self.graph.add_input(name, ty);
        if let Some(port) = self.graph.inputs.last_mut() {
            port.quant = quant;
        }
        self.define(value, at, id)
    }

    /// `v4 "name" quant(0.1, 3)`
    fn output(&mut self) -> Result<()> {
        let (name, id) = self.used_name()?;
        let name = self.port_name(&name);
        let quant = self.quant()?;
        self.graph.add_output(name, id);
        if let Some(port) = self.graph.outputs.last_mut() {
            port.quant = quant;
        }
        Ok(())
    }

    /// The name in quotes, or else the value's.
    fn port_name(&mut self, value: &str) -> String {
        match self.peek().clone() {
            Token::Text(name) => {
                self.bump();
                name
            }
            _ => value.to_string(),
        }
    }

    fn quant(&mut self) -> Result<Option<QuantParams>> {
        if !self.eat_word("quant") {
            return Ok(None);
        }
        let at = self.at();
        let items = self.items('(', ')')?;
        Item { at, key: None, value: Value::List(items) }.read().map(Some)
    }

    /// The name of a value about to be defined.
    fn new_name(&mut self) -> Result<(String, Position)> {
        let at = self.at();
        let name = self.word("the name of a value")?;
        if self.names.contains_key(&name) {
            return Err(at.error(format!("{name} is defined twice")));
        }
        Ok((name, at))
    }

    fn define(&mut self, name: String, at: Position, id: ValueId) -> Result<()> {
        match self.names.insert(name, id) {
            None => Ok(()),
            Some(_) => Err(at.error("this value is defined twice")),
        }
    }

    fn used_name(&mut self) -> Result<(String, ValueId)> {
        let at = self.at();
        let name = self.word("the name of a value")?;
        match self.names.get(&name) {
            Some(&id) => Ok((name, id)),
            None => Err(at.error(format!("{name} is not defined before its use"))),
        }
    }

    /// `v1 = const f32[2] "origin" [1.0, 2.0]`, or `v1 = op v0 {attributes} : f32[2] "origin"`
    fn statement(&mut self) -> Result<()> {
        if !matches!(self.peek(), Token::Word(_)) {
            return self.expected("a value (`v1 = ...`) or `return`");
        }
        let (name, at) = self.new_name()?;
        self.sign('=')?;
        let id = if self.eat_word("const") { self.constant()? } else { self.node()? };
        self.define(name, at, id)
    }

    fn constant(&mut self) -> Result<ValueId> {
        let ty = self.tensor_type()?;
        let origin = self.origin();
        let tensor = self.tensor(&ty)?;
        Ok(self.graph.add_const(tensor, origin))
    }

    fn node(&mut self) -> Result<ValueId> {
        let at = self.at();
        let (op, inputs) = self.operator()?;
        let annotation = match self.eat(':') {
            true => Some((self.at(), self.tensor_type()?)),
            false => None,
        };
        let origin = self.origin();
        let id = self.graph.add_node(op, inputs, origin).map_err(|e| at.error(e.to_string()))?;
        match annotation {
            Some((at, ty)) if ty != *self.graph.ty(id) => {
                Err(at.error(format!("the type is {}, not {ty}", self.graph.ty(id))))
            }
            _ => Ok(id),
        }
    }

    /// `conv2d v0, v1 {attributes}`
    fn operator(&mut self) -> Result<(Op, Vec<ValueId>)> {
        let at = self.at();
        let name = self.word("an operator")?;
        let args = if *self.peek() == Token::Sign('(') { self.items('(', ')')? } else { vec![] };
        let mut inputs = Vec::new();
        if matches!(self.peek(), Token::Word(_)) {
            inputs.push(self.used_name()?.1);
            while self.eat(',') {
                inputs.push(self.used_name()?.1);
            }
        }
        let attrs = if *self.peek() == Token::Sign('{') { self.items('{', '}')? } else { vec![] };
        Ok((ops::op(&name, at, args, attrs)?, inputs))
    }

    /// Strings separated by commas, or none.
    fn origin(&mut self) -> Origin {
        let mut names: Vec<Arc<str>> = Vec::new();
        while let Token::Text(name) = self.peek() {
            names.push(Arc::from(name.as_str()));
            self.bump();
            if !self.eat(',') {
                break;
            }
        }
        names.into()
    }

    /// `f32[1x28x28x1]`, or `f32[]` of rank 0.
    fn tensor_type(&mut self) -> Result<TensorType> {
        let at = self.at();
        let dtype = match self.peek() {
            Token::Word(w) => DType::from_name(w),
            _ => None,
        };
        let Some(dtype) = dtype else { return self.expected("a type, as f32[1x28x28x1]") };
        self.bump();
        self.sign('[')?;
        let mut shape = Shape::new();
        if let Token::Number(n) = self.peek() {
            let dims: Option<Shape> = n.split('x').map(dimension).collect();
            shape = match dims {
                Some(dims) => dims,
                None => return self.expected("dimensions, as 1x28x28x1"),
            };
            self.bump();
        }
        self.sign(']')?;
        let ty = TensorType::new(dtype, shape);
        match ty.checked_elements() {
            Some(n) if n <= MAX_ELEMENTS => Ok(ty),
            _ => Err(at.error(format!("{ty} is too large"))),
        }
    }

    /// The elements of a constant.
    fn tensor(&mut self, ty: &TensorType) -> Result<Tensor> {
        let at = self.at();
        if self.eat_word("sha256") {
            return self.referenced(ty, at);
        }
        let item = self.item()?;
        match &item.value {
            Value::List(items) => listed(ty, at, items),
            Value::Word(w, args) if w == "splat" && args.len() == 1 => {
                self.generate(ty, at)?;
                splat(ty, &args[0])
            }
            Value::Word(w, args) if w == "rand" && args.len() == 3 && args.iter().all(|a| a.key.is_none()) => {
                self.generate(ty, at)?;
                let (seed, lo, hi) = (args[0].read()?, args[1].read()?, args[2].read()?);
                random_tensor(ty, seed, lo, hi)
                    .ok_or_else(|| at.error(format!("the bounds of rand are not an ascending pair of {}", ty.dtype)))
            }
            _ => Err(at.error("expected the elements: [1, 2], splat(x), rand(seed, lo, hi) or sha256:...")),
        }
    }

    fn referenced(&mut self, ty: &TensorType, at: Position) -> Result<Tensor> {
        self.sign(':')?;
        let hash = match self.peek().clone() {
            Token::Word(h) | Token::Number(h)
                if h.len() == 64 && h.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) =>
            {
                h
            }
            _ => return self.expected("the 64 hexadecimal digits of a hash"),
        };
        self.bump();
        match (self.resolve)(&hash) {
            None => Err(at.error("the constant with this hash is not at hand")),
            Some(t) if t.ty() != ty => Err(at.error(format!("the constant with this hash is {}, not {ty}", t.ty()))),
            Some(t) if t.sha256() != hash => Err(at.error("the constant that was found has another hash")),
            Some(t) => Ok(t),
        }
    }

    /// Refuses constants whose size the text does not bound.
    fn generate(&mut self, ty: &TensorType, at: Position) -> Result<()> {
        self.generated = self.generated.saturating_add(ty.elements());
        if self.generated > GENERATED_ELEMENTS {
            return Err(at.error(format!("splat and rand make more than {GENERATED_ELEMENTS} elements in this text")));
        }
        Ok(())
    }

    /// Items between two signs, separated by commas.
    fn items(&mut self, open: char, close: char) -> Result<Vec<Item>> {
        self.sign(open)?;
        let mut items = Vec::new();
        if self.eat(close) {
            return Ok(items);
        }
        loop {
            items.push(self.item()?);
            if !self.eat(',') {
                break;
            }
        }
        self.sign(close)?;
        Ok(items)
    }

    /// `key = value` or a value: a number, a list, or a word with or without arguments.
    fn item(&mut self) -> Result<Item> {
        let at = self.at();
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(at.error("lists and arguments are nested too deeply"));
        }
        let item = match self.peek().clone() {
            Token::Number(n) => {
                self.bump();
                Item { at, key: None, value: Value::Number(n) }
            }
            Token::Sign('[') => Item { at, key: None, value: Value::List(self.items('[', ']')?) },
            Token::Word(word) => {
                self.bump();
                if self.eat('=') {
                    let value = self.item()?;
                    if value.key.is_some() {
                        return Err(value.at.error("a value has one name"));
                    }
                    Item { at, key: Some(word), value: value.value }
                } else {
                    let args = if *self.peek() == Token::Sign('(') { self.items('(', ')')? } else { vec![] };
                    Item { at, key: None, value: Value::Word(word, args) }
                }
            }
            _ => return self.expected("a value"),
        };
        self.depth -= 1;
        Ok(item)
    }
}

fn dimension(text: &str) -> Option<usize> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// A constant whose elements are all there.
fn listed(ty: &TensorType, at: Position, items: &[Item]) -> Result<Tensor> {
    if items.len() != ty.elements() {
        return Err(at.error(format!("{ty} has {} elements, not {}", ty.elements(), items.len())));
    }
    if ty.dtype.is_float() {
        let mut data = Vec::with_capacity(ty.bytes());
        for item in items {
            data.extend(float_bytes(ty.dtype, item)?);
        }
        return Tensor::from_bytes(ty.clone(), data).map_err(|e| at.error(e.to_string()));
    }
    let values: Vec<i64> = items.iter().map(|item| integer(ty.dtype, item)).collect::<Result<_>>()?;
    Ok(Tensor::from_i64(ty.clone(), &values))
}

fn splat(ty: &TensorType, item: &Item) -> Result<Tensor> {
    if ty.dtype.is_float() {
        let data = float_bytes(ty.dtype, item)?.repeat(ty.elements());
        return Tensor::from_bytes(ty.clone(), data).map_err(Error::from);
    }
    let value = integer(ty.dtype, item)?;
    Ok(integers(ty, || value))
}

/// The little-endian bytes of one element of a floating-point type.
fn float_bytes(dtype: DType, item: &Item) -> Result<Vec<u8>> {
    if item.key.is_some() {
        return Err(item.at.error("an element has no name"));
    }
    if dtype == DType::F32 {
        return Ok(item.read::<F32>()?.0.to_le_bytes().to_vec());
    }
    let half = |is_nan: fn(u16) -> bool, round: fn(f64) -> u16, is_finite: fn(u16) -> bool| -> Result<Vec<u8>> {
        if let Some(bits) = nan(item, 16)? {
            let bits = bits as u16;
            return match is_nan(bits) {
                true => Ok(bits.to_le_bytes().to_vec()),
                false => Err(item.at.error(format!("these are not the bits of a NaN of {dtype}"))),
            };
        }
        let value: f64 = item.read()?;
        let bits = round(value);
        finite_or_spelled(item, &value.to_string(), is_finite(bits))?;
        Ok(bits.to_le_bytes().to_vec())
    };
    match dtype {
        DType::F16 => {
            half(|b| f16::from_bits(b).is_nan(), |v| f16::from_f64(v).to_bits(), |b| f16::from_bits(b).is_finite())
        }
        _ => half(|b| bf16::from_bits(b).is_nan(), |v| bf16::from_f64(v).to_bits(), |b| bf16::from_bits(b).is_finite()),
    }
}

/// One element of an integer type, checked against its range.
fn integer(dtype: DType, item: &Item) -> Result<i64> {
    if item.key.is_some() {
        return Err(item.at.error("an element has no name"));
    }
    if dtype == DType::Bool {
        return item.choice(&[("false", 0), ("true", 1)]);
    }
    let value: i64 = item.read()?;
    let fits = match dtype.int_range() {
        Some((lo, hi)) => (lo as i64..=hi as i64).contains(&value) && !(dtype == DType::B1 && value == 0),
        None => true,
    };
    if fits { Ok(value) } else { Err(item.at.error(format!("{value} is no value of {dtype}"))) }
}
