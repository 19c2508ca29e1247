//! Text of the model made safe for C: identifiers, comments, string literals.

/// Words that C or C++ reserve; a model of such a name would read badly even where a suffix makes it legal.
const KEYWORDS: &[&str] = &[
    "alignas",
    "alignof",
    "and",
    "asm",
    "auto",
    "bool",
    "break",
    "case",
    "catch",
    "char",
    "class",
    "const",
    "constexpr",
    "continue",
    "default",
    "delete",
    "do",
    "double",
    "else",
    "enum",
    "explicit",
    "export",
    "extern",
    "false",
    "float",
    "for",
    "friend",
    "goto",
    "if",
    "inline",
    "int",
    "long",
    "mutable",
    "namespace",
    "new",
    "not",
    "nullptr",
    "operator",
    "or",
    "private",
    "protected",
    "public",
    "register",
    "restrict",
    "return",
    "short",
    "signed",
    "sizeof",
    "static",
    "struct",
    "switch",
    "template",
    "this",
    "throw",
    "true",
    "try",
    "typedef",
    "typename",
    "typeof",
    "union",
    "unsigned",
    "using",
    "virtual",
    "void",
    "volatile",
    "while",
    "xor",
];

/// Longest name of a model: C promises 63 significant characters, and suffixes are added.
const MAX_NAME: usize = 40;
/// Names longer than this are cut in comments and strings.
const MAX_TEXT: usize = 200;

/// Why a name cannot prefix C identifiers, or `None`.
pub fn fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("it is empty")
    } else if name.len() > MAX_NAME {
        Some("it is longer than 40 characters")
    } else if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        Some("it does not start with a letter of ASCII")
    } else if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        Some("it holds a character other than letters, digits and underscores of ASCII")
    } else if KEYWORDS.contains(&name) {
        Some("it is a keyword of C or C++")
    } else {
        None
    }
}

/// The text inside a block comment: no comment can end or begin in it, and it stays on its line.
pub fn comment(text: &str) -> String {
    let mut out = String::new();
    for c in shorten(text).chars() {
        let c = if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
        let joins = matches!((out.chars().last(), c), (Some('*'), '/') | (Some('/'), '*') | (Some('?'), '?'));
        if joins {
            out.push(' ');
        }
        // A backslash could splice lines.
        out.push(if c == '\\' { '|' } else { c });
    }
    out
}

/// A string literal of the text's UTF-8 bytes.
pub fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for &b in shorten(text).as_bytes() {
        match b {
            // An escaped question mark forms no trigraph.
            b'"' | b'\\' | b'?' => {
                out.push('\\');
                out.push(b as char);
            }
            b' '..=b'~' => out.push(b as char),
            _ => out.push_str(&format!("\\{b:03o}")),
        }
    }
    out.push('"');
    out
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_identifiers() {
        for good in ["kws", "A1", "lenet_5"] {
            assert_eq!(fault(good), None, "{good}");
        }
        let long = "a".repeat(41);
        for bad in ["", "1a", "_a", "a-b", "ä", "a b", "int", "while", "class", "a\n", &long] {
            assert!(fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn comments_cannot_be_left() {
        assert_eq!(comment("*/ int x; /*"), "* / int x; / *");
        assert_eq!(comment("a\\\nb??/\u{e9}\"'"), "a|?b? ?/?\"'");
        assert_eq!(comment("**//"), "** //");
        assert_eq!(comment(&"x".repeat(300)).len(), 203);
    }

    #[test]
    fn strings_cannot_be_left() {
        assert_eq!(string("a\"b\\c\n??/"), r#""a\"b\\c\012\?\?/""#);
        assert_eq!(string("\u{e9}1"), "\"\\303\\2511\"");
    }
}
