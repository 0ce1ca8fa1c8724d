//! What becomes of the parts of a value while it is checked.

/// Receives the parts in order.
pub(super) trait Output {
    /// A bracket, a comma, a colon, an integer, or a word.
    fn raw(&mut self, part: &[u8]);
    fn float(&mut self, number: f64);
    /// A string or key that was written without escapes.
    fn plain_string(&mut self, text: &str);
    /// A string or key whose escapes are resolved.
    fn string(&mut self, text: &str);
}

/// Drops all.
pub(super) struct Nothing;

impl Output for Nothing {
    fn raw(&mut self, _: &[u8]) {}
    fn float(&mut self, _: f64) {}
    fn plain_string(&mut self, _: &str) {}
    fn string(&mut self, _: &str) {}
}

/// Writes all as serde does.
pub(super) struct Canonical<'a, F> {
    pub written: &'a mut Vec<u8>,
    pub each_text: F,
}

impl<F: FnMut(&str)> Output for Canonical<'_, F> {
    fn raw(&mut self, part: &[u8]) {
        self.written.extend_from_slice(part);
    }

    fn float(&mut self, number: f64) {
        // Writing a number to memory does not fail.
        let _ = serde_json::to_writer(&mut *self.written, &number);
    }

    fn plain_string(&mut self, text: &str) {
        (self.each_text)(text);
        self.written.push(b'"');
        self.written.extend_from_slice(text.as_bytes());
        self.written.push(b'"');
    }

    fn string(&mut self, text: &str) {
        (self.each_text)(text);
        // Neither does writing a string.
        let _ = serde_json::to_writer(&mut *self.written, text);
    }
}
