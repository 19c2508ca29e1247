//! Attributes and arguments of the text form, read as the Rust types that operators hold.

use super::lex::Position;
use crate::dtype::DType;
use crate::error::Result;
use crate::types::{F32, QuantParams};

/// An attribute, argument or list element, with its position.
#[derive(Clone, Debug)]
pub struct Item {
    pub at: Position,
    /// The name before `=`.
    pub key: Option<String>,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub enum Value {
    Number(String),
    List(Vec<Item>),
    /// A word with the arguments in parentheses after it: none for a bare word.
    Word(String, Vec<Item>),
}

impl Item {
    /// A bare word.
    pub fn word(&self) -> Option<&str> {
        match &self.value {
            Value::Word(w, args) if args.is_empty() => Some(w),
            _ => None,
        }
    }

    pub fn read<T: Read>(&self) -> Result<T> {
        T::read(self)
    }

    /// One of the listed words.
    pub fn choice<T: Copy>(&self, words: &[(&str, T)]) -> Result<T> {
        let found = self.word().and_then(|w| words.iter().find(|(name, _)| *name == w));
        found.map(|(_, v)| *v).ok_or_else(|| {
            let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
            self.at.error(format!("expected one of {}", names.join(", ")))
        })
    }
}

/// A type that an attribute can have.
pub trait Read: Sized {
    /// Reads the item's value, whatever its key.
    ///
    /// # Errors
    /// [`crate::Error::Parse`] where it is not of this type.
    fn read(item: &Item) -> Result<Self>;
}

macro_rules! whole_numbers {
    ($($t:ty),*) => { $(
        impl Read for $t {
            fn read(item: &Item) -> Result<Self> {
                match &item.value {
                    Value::Number(n) => n.parse().map_err(|_| item.at.error(format!(
                        "`{n}` is not a whole number of {}..={}", <$t>::MIN, <$t>::MAX
                    ))),
                    _ => Err(item.at.error("expected a whole number")),
                }
            }
        }
    )* };
}
whole_numbers!(usize, isize, u32, i32, u64, i64);

impl Read for F32 {
    fn read(item: &Item) -> Result<F32> {
        if let Some(bits) = nan(item, 32)? {
            return Ok(F32(f32::from_bits(bits)));
        }
        let text = number(item)?;
        let v: f32 = text.parse().map_err(|_| item.at.error(format!("`{text}` is not a number")))?;
        finite_or_spelled(item, &text, v.is_finite())?;
        Ok(F32(v))
    }
}

impl Read for f64 {
    fn read(item: &Item) -> Result<f64> {
        let text = number(item)?;
        let v: f64 = text.parse().map_err(|_| item.at.error(format!("`{text}` is not a number")))?;
        finite_or_spelled(item, &text, v.is_finite())?;
        Ok(v)
    }
}

/// The text of a number, or of an infinity.
fn number(item: &Item) -> Result<String> {
    match (&item.value, item.word()) {
        (Value::Number(n), _) if n == "-inf" || n.ends_with(|c: char| c.is_ascii_digit() || c == '.') => Ok(n.clone()),
        (_, Some("inf")) => Ok("inf".into()),
        _ => Err(item.at.error("expected a number: digits, inf, -inf or nan(0x7fc00000)")),
    }
}

/// Refuses decimals that only rounding makes infinite.
pub fn finite_or_spelled(item: &Item, text: &str, finite: bool) -> Result<()> {
    if finite || text.ends_with("inf") { Ok(()) } else { Err(item.at.error(format!("`{text}` is too large"))) }
}

/// The bits of `nan(0x...)` of a float of 16 or 32 bits; of 16 bits, the exponent is left to the caller to check.
pub fn nan(item: &Item, width: u32) -> Result<Option<u32>> {
    let Value::Word(w, args) = &item.value else { return Ok(None) };
    if w != "nan" {
        return Ok(None);
    }
    let bits = match args.as_slice() {
        [Item { key: None, value: Value::Number(n), .. }] => {
            n.strip_prefix("0x").and_then(|hex| u32::from_str_radix(hex, 16).ok())
        }
        _ => None,
    };
    match bits {
        Some(bits) if width == 32 && f32::from_bits(bits).is_nan() => Ok(Some(bits)),
        Some(bits) if width == 16 && bits <= 0xFFFF => Ok(Some(bits)),
        _ => Err(item.at.error("nan takes its bits in hexadecimal, as in nan(0x7fc00000)")),
    }
}

impl Read for DType {
    fn read(item: &Item) -> Result<DType> {
        item.word().and_then(DType::from_name).ok_or_else(|| {
            let names: Vec<&str> = DType::ALL.iter().map(|d| d.name()).collect();
            item.at.error(format!("expected an element type: {}", names.join(", ")))
        })
    }
}

impl Read for QuantParams {
    fn read(item: &Item) -> Result<QuantParams> {
        match &item.value {
            Value::List(items) if items.len() == 2 && items.iter().all(|i| i.key.is_none()) => {
                Ok(QuantParams { scale: items[0].read()?, zero_point: items[1].read()? })
            }
            _ => Err(item.at.error("expected [scale, zero point]")),
        }
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(item: &Item) -> Result<Vec<T>> {
        let Value::List(items) = &item.value else { return Err(item.at.error("expected a list: [a, b]")) };
        let element = |i: &Item| match i.key {
            None => i.read(),
            Some(_) => Err(i.at.error("a list holds values without names")),
        };
        items.iter().map(element).collect()
    }
}

impl<T: Read, const N: usize> Read for [T; N] {
    fn read(item: &Item) -> Result<[T; N]> {
        let found: Vec<T> = item.read()?;
        let count = found.len();
        found.try_into().map_err(|_| item.at.error(format!("expected {N} values, found {count}")))
    }
}

/// The named attributes of one operator, or arguments of one step. Each is taken once; [`Attrs::finish`] refuses what
/// is left.
pub struct Attrs {
    owner: String,
    at: Position,
    items: Vec<Item>,
    /// What was asked for.
    known: Vec<&'static str>,
}

impl Attrs {
    pub fn new(owner: &str, at: Position, items: Vec<Item>) -> Attrs {
        Attrs { owner: owner.to_string(), at, items, known: vec![] }
    }

    /// The next argument without a name.
    pub fn positional<T: Read>(&mut self, what: &str) -> Result<T> {
        match self.items.first() {
            Some(item) if item.key.is_none() => self.items.remove(0).read(),
            _ => Err(self.at.error(format!("{} lacks its argument: {what}", self.owner))),
        }
    }

    pub fn optional<T: Read>(&mut self, key: &'static str) -> Result<Option<T>> {
        self.known.push(key);
        match self.items.iter().position(|i| i.key.as_deref() == Some(key)) {
            Some(i) => self.items.remove(i).read().map(Some),
            None => Ok(None),
        }
    }

    pub fn or<T: Read>(&mut self, key: &'static str, default: T) -> Result<T> {
        Ok(self.optional(key)?.unwrap_or(default))
    }

    pub fn required<T: Read>(&mut self, key: &'static str) -> Result<T> {
        self.optional(key)?.ok_or_else(|| self.at.error(format!("{} lacks its attribute `{key}`", self.owner)))
    }

    /// Whether the bare word is present.
    pub fn flag(&mut self, key: &'static str) -> bool {
        self.known.push(key);
        let found = self.items.iter().position(|i| i.key.is_none() && i.word() == Some(key));
        found.inspect(|i| drop(self.items.remove(*i))).is_some()
    }

    /// # Errors
    /// [`crate::Error::Parse`] at the first attribute that was not taken.
    pub fn finish(self) -> Result<()> {
        let Some(item) = self.items.first() else { return Ok(()) };
        let name = item.key.as_deref().or(match &item.value {
            Value::Word(w, _) => Some(w.as_str()),
            _ => None,
        });
        Err(item.at.error(match name {
            Some(name) if self.known.contains(&name) => {
                format!("`{name}` is given twice, or with a value where it takes none")
            }
            _ if self.known.is_empty() => format!("{} takes no further arguments", self.owner),
            _ => format!("{} has no such attribute; it has {}", self.owner, self.known.join(", ")),
        }))
    }
}
