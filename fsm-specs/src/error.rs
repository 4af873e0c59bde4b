//! Problems with a table, each at its file and line.

use std::fmt;

/// One problem at one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, as it is shown to the reader.
    pub file: String,
    /// The line, counted from 1; 0 when the problem is with the file as a whole.
    pub line: usize,
    /// What is wrong, in one sentence.
    pub message: String,
}

/// Everything found wrong, in the order of the lines.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Error {
    problems: Vec<Problem>,
}

impl Error {
    /// An error with one problem.
    #[must_use]
    pub fn new(file: &str, line: usize, message: impl fmt::Display) -> Self {
        let mut error = Self::default();
        error.push(file, line, message);
        error
    }

    /// The problems, at least one for an error that was returned.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    pub(crate) fn push(&mut self, file: &str, line: usize, message: impl fmt::Display) {
        self.problems.push(Problem { file: file.to_owned(), line, message: message.to_string() });
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.problems.extend(other.problems);
    }

    /// By file and line, each problem once.
    pub(crate) fn sorted(mut self) -> Self {
        self.problems.sort();
        self.problems.dedup();
        self
    }

    pub(crate) fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.problems.is_empty() { Ok(value) } else { Err(self.sorted()) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Problem { file, line, message }) in self.problems.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            match line {
                0 => write!(f, "{file}: {message}")?,
                _ => write!(f, "{file}:{line}: {message}")?,
            }
        }
        Ok(())
    }
}

/// Prints as `Display` does: a `main` that returns this error shows it with `Debug`.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.problems.len() > 1 {
            writeln!(f)?;
        }
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}
