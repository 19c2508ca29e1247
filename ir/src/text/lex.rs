//! Splits the text form into tokens.

use crate::error::{Error, Result};

/// Line and column, from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl Position {
    /// The error of an input that is wrong here.
    pub fn error(self, reason: impl Into<String>) -> Error {
        Error::Parse { line: self.line, column: self.column, reason: reason.into() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// A letter or underscore, then letters, digits and underscores.
    Word(String),
    /// A digit or sign, then everything that can belong to a number, a shape (`1x28x28x1`) or a hash.
    Number(String),
    /// A string literal, without quotes and escapes.
    Text(String),
    Sign(char),
    End,
}

impl Token {
    /// What an error message calls the token.
    pub fn describe(&self) -> String {
        match self {
            Token::Word(s) | Token::Number(s) => format!("`{}`", shorten(s)),
            Token::Text(s) => format!("the string {:?}", shorten(s)),
            Token::Sign(c) => format!("`{c}`"),
            Token::End => "the end of the text".into(),
        }
    }
}

fn shorten(s: &str) -> String {
    let mut short: String = s.chars().take(40).collect();
    if short.len() < s.len() {
        short.push_str("...");
    }
    short
}

/// The tokens of a text with their positions, the last of them [`Token::End`]. Comments run from `//` to the end of the
/// line.
///
/// # Errors
/// [`Error::Parse`] at a character that starts no token, or in a string literal.
pub fn lex(text: &str) -> Result<Vec<(Token, Position)>> {
    let mut lexer = Lexer { rest: text.chars().peekable(), at: Position { line: 1, column: 1 } };
    let mut tokens = Vec::new();
    loop {
        let (token, at) = lexer.token()?;
        let end = token == Token::End;
        tokens.push((token, at));
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    at: Position,
}

impl Lexer<'_> {
    fn bump(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        if c == '\n' {
            self.at = Position { line: self.at.line + 1, column: 1 };
        } else {
            self.at.column += 1;
        }
        Some(c)
    }

    fn token(&mut self) -> Result<(Token, Position)> {
        loop {
            let at = self.at;
            let Some(c) = self.bump() else { return Ok((Token::End, at)) };
            let token = match c {
                c if c.is_whitespace() => continue,
                '/' if self.rest.peek() == Some(&'/') => {
                    while self.rest.peek().is_some_and(|c| *c != '\n') {
                        self.bump();
                    }
                    continue;
                }
                '"' => Token::Text(self.text(at)?),
                '@' | '(' | ')' | '{' | '}' | '[' | ']' | ':' | ',' | '=' => Token::Sign(c),
                c if c.is_ascii_digit() || c == '-' => Token::Number(self.number(c)),
                c if word(c) => {
                    let mut s = String::from(c);
                    while let Some(c) = self.rest.next_if(|c| word(*c)) {
                        self.at.column += 1;
                        s.push(c);
                    }
                    Token::Word(s)
                }
                c => return Err(at.error(format!("the character {c:?} has no meaning here"))),
            };
            return Ok((token, at));
        }
    }

    fn number(&mut self, first: char) -> String {
        let mut s = String::from(first);
        while let Some(&c) = self.rest.peek() {
            // A sign belongs to a decimal exponent, as in 1e-5.
            let exponent = matches!(c, '+' | '-') && s.ends_with(['e', 'E']) && !s.contains(['x', 'X']);
            if !(word(c) || c == '.' || exponent) {
                break;
            }
            self.bump();
            s.push(c);
        }
        s
    }

    fn text(&mut self, start: Position) -> Result<String> {
        let mut s = String::new();
        loop {
            let at = self.at;
            match self.bump() {
                Some('"') => return Ok(s),
                None | Some('\n') => return Err(start.error("this string has no closing quote on its line")),
                Some('\\') => s.push(self.escape(at)?),
                Some(c) => s.push(c),
            }
        }
    }

    fn escape(&mut self, at: Position) -> Result<char> {
        Ok(match self.bump() {
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some(c @ ('"' | '\\')) => c,
            Some('u') if self.bump() == Some('{') => {
                let mut digits = String::new();
                while let Some(c) = self.rest.next_if(|c| c.is_ascii_hexdigit()) {
                    self.at.column += 1;
                    digits.push(c);
                }
                let c = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                match (self.bump(), c) {
                    (Some('}'), Some(c)) => c,
                    _ => return Err(at.error("this is not the number of a character: write \\u{41}")),
                }
            }
            _ => return Err(at.error("unknown escape: there are \\\" \\\\ \\n \\r \\t and \\u{41}")),
        })
    }
}

fn word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_positions() {
        let tokens = lex("v1 = f32[1x2] // comment\n  -1.5e-3 \"a\\u{e9}\\n\"").unwrap();
        let expected = [
            (Token::Word("v1".into()), 1, 1),
            (Token::Sign('='), 1, 4),
            (Token::Word("f32".into()), 1, 6),
            (Token::Sign('['), 1, 9),
            (Token::Number("1x2".into()), 1, 10),
            (Token::Sign(']'), 1, 13),
            (Token::Number("-1.5e-3".into()), 2, 3),
            (Token::Text("a\u{e9}\n".into()), 2, 11),
            (Token::End, 2, 22),
        ];
        let expected: Vec<_> = expected.into_iter().map(|(t, line, column)| (t, Position { line, column })).collect();
        assert_eq!(tokens, expected);
    }

    #[test]
    fn faults_are_located() {
        for (text, line, column) in [
            ("a\n  $", 2, 3),
            ("\"open", 1, 1),
            ("x \"a\nb\"", 1, 3),
            (r#""\q""#, 1, 2),
            (r#""\u{d800}""#, 1, 2),
            (r#""\u{ffffffffff}""#, 1, 2),
            ("/ x", 1, 1),
        ] {
            match lex(text) {
                Err(Error::Parse { line: l, column: c, .. }) => assert_eq!((l, c), (line, column), "{text:?}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }
}
