//! Inputs that are kept: one a line, in hexadecimal, `#` before a remark.

use std::io;
use std::path::PathBuf;

/// Reads the corpus of a target.
///
/// # Errors
///
/// It cannot be read, or a line is not hexadecimal.
pub fn read(name: &str) -> io::Result<Vec<Vec<u8>>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("vectors/fuzz/{name}.hex"));
    let text = std::fs::read_to_string(&path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let input = |line: &str| hex::decode(line).map_err(|error| io::Error::other(format!("{}: {line}: {error}", path.display())));
    lines.map(input).collect()
}
