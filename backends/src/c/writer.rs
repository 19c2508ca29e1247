//! Indented C text.

/// Collects lines, indenting by open braces.
#[derive(Default)]
pub struct Writer {
    text: String,
    depth: usize,
}

impl Writer {
    pub fn line(&mut self, line: impl AsRef<str>) {
        let line = line.as_ref();
        if !line.is_empty() {
            // Preprocessor directives stay at the margin.
            let depth = if line.starts_with('#') { 0 } else { self.depth };
            (0..depth).for_each(|_| self.text.push_str("    "));
            self.text.push_str(line);
        }
        self.text.push('\n');
    }

    /// A line that opens a block: ` {` is appended.
    pub fn open(&mut self, line: impl AsRef<str>) {
        self.line(format!("{} {{", line.as_ref()));
        self.depth += 1;
    }

    /// Opens a block of its own scope.
    pub fn block_open(&mut self) {
        self.line("{");
        self.depth += 1;
    }

    /// Closes the block and opens its alternative.
    pub fn or_else(&mut self) {
        self.depth -= 1;
        self.line("} else {");
        self.depth += 1;
    }

    pub fn close(&mut self) {
        self.depth -= 1;
        self.line("}");
    }

    /// `for (int32_t var = 0; var < end; var += step)`.
    pub fn open_for(&mut self, var: &str, end: impl std::fmt::Display, step: usize) {
        let step = if step == 1 { format!("{var}++") } else { format!("{var} += {step}") };
        self.open(format!("for (int32_t {var} = 0; {var} < {end}; {step})"));
    }

    pub fn finish(self) -> String {
        debug_assert_eq!(self.depth, 0, "every block is closed");
        self.text
    }
}
