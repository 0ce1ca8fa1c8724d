//! Output of commands. A reader that has gone away (`| head`) never ends the program.

use std::io::Write as _;

/// Print a line to standard output.
pub fn print_line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Print a line to standard error, for what happens before logging has started.
pub fn print_error(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
