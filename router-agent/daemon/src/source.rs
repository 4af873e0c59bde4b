//! A configuration file as text. Whatever is wrong with it is told with file, line and key.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Somebody else than its owner can write the file.
    #[error(
        "{}: others than its owner can write it (mode {mode:04o}), and it says who is trusted; `chmod go-w` it",
        path.display()
    )]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The text is not TOML, or a key or value is not one we know.
    #[error("{}:{line}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// A value is well formed but cannot be used.
    #[error("{}:{line}: {key}: {message}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Line, from 1: that of the key or, where it is not written down, of the section it belongs to.
        line: usize,
        /// The key, dotted.
        key: String,
        /// What is wrong with it.
        message: String,
    },
}

/// A configuration file that has been read.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// Reads a file, which nobody but its owner may be able to write: it holds the authorised peer database, and trust in that is worth
    /// no more than where it comes from (RFC 5971 §4.4.2, G-100).
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let mode = metadata.mode() & 0o7777;
        if metadata.is_file() && mode & 0o022 != 0 {
            return Err(ConfigError::Writable { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        Ok(Self::new(path, text))
    }

    /// A text as if it stood in the file `path`.
    pub fn new(path: &Path, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), text: text.into() }
    }

    /// Reads the values. Unknown keys are errors where the type says so.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        toml::from_str(&self.text).map_err(|error| ConfigError::Parse {
            path: self.path.clone(),
            line: self.line_at(error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        })
    }

    /// The error about the value at `key`, which names its sections with dots and entries of lists by their place from 0:
    /// `grant.0.volume`.
    pub fn wrong(&self, key: &str, message: impl Into<String>) -> ConfigError {
        // The line says which entry it is, better than a place would.
        let names: Vec<&str> = key.split('.').filter(|step| step.parse::<usize>().is_err()).collect();
        ConfigError::Value { path: self.path.clone(), line: self.line_of(key), key: names.join("."), message: message.into() }
    }

    /// The text at a key of the file itself, if there is one: for what must be known before the values are read.
    pub fn text_at(&self, key: &str) -> Option<String> {
        let document = DeTable::parse(&self.text).ok()?;
        let found = document.get_ref().iter().find(|(name, _)| name.get_ref() == key);
        found.and_then(|(_, value)| value.get_ref().as_str()).map(str::to_owned)
    }

    /// `path` as seen from the directory of the file.
    pub fn beside(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new(".")).join(path)
    }

    fn line_of(&self, key: &str) -> usize {
        let Ok(document) = DeTable::parse(&self.text) else { return 1 };
        let document = DeValue::Table(document.into_inner());
        let (mut here, mut at) = (&document, 0);
        for step in key.split('.') {
            let found = match here {
                DeValue::Table(table) => {
                    table.iter().find(|(name, _)| name.get_ref() == step).map(|(name, value)| (name.span().start, value.get_ref()))
                }
                DeValue::Array(entries) => {
                    let entry = step.parse::<usize>().ok().and_then(|place| entries.get(place));
                    entry.map(|entry| (entry.span().start, entry.get_ref()))
                }
                _ => None,
            };
            let Some(found) = found else { break };
            (at, here) = found;
        }
        self.line_at(at)
    }

    fn line_at(&self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|&byte| byte == b'\n').count().saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// G-100: who can write the file can say who is trusted.
    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let path = std::env::temp_dir().join(format!("pbs-source-{}.toml", std::process::id()));
        std::fs::write(&path, "name = \"x\"\n").unwrap();
        let read = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            Source::read(&path).map(|source| source.text)
        };
        for mode in [0o620, 0o602, 0o666, 0o664] {
            let error = read(mode).unwrap_err().to_string();
            assert!(error.contains(&format!("mode {mode:04o}")) && error.contains("chmod go-w"), "{error}");
        }
        for mode in [0o600, 0o640, 0o644] {
            assert_eq!(read(mode).unwrap(), "name = \"x\"\n");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Source::read(&path), Err(ConfigError::Read { .. })));
    }

    #[test]
    fn an_error_about_a_value_names_the_line_it_stands_on() {
        let text = "# comment\nname = \"x\"\n\n[a]\nb = 1\n\n[[grant]]\nvolume = 1\n\n[[grant]]\n# more\nvolume = 0\n";
        let source = Source::new(Path::new("x.toml"), text);
        let line = |key| source.wrong(key, "no").to_string();
        assert_eq!(line("name"), "x.toml:2: name: no");
        assert_eq!(line("a.b"), "x.toml:5: a.b: no");
        assert_eq!(line("grant.0.volume"), "x.toml:8: grant.volume: no");
        assert_eq!(line("grant.1.volume"), "x.toml:12: grant.volume: no");
        assert_eq!(line("grant.1.ttl"), "x.toml:10: grant.ttl: no", "not written down: where its entry begins");
        assert_eq!(line("a.c"), "x.toml:4: a.c: no");
        assert_eq!(line("z.y"), "x.toml:1: z.y: no");
    }

    #[test]
    fn an_entry_of_an_inline_list_has_its_own_line() {
        let source = Source::new(Path::new("x.toml"), "ids = [\n  1,\n  2,\n]\n");
        assert_eq!(source.wrong("ids.1", "no").to_string(), "x.toml:3: ids: no");
    }

    #[test]
    fn a_path_is_taken_from_the_directory_of_the_file() {
        let source = Source::new(Path::new("/etc/pbs/x.toml"), "");
        assert_eq!(source.beside(Path::new("x.key")), Path::new("/etc/pbs/x.key"));
        assert_eq!(source.beside(Path::new("/keys/x.key")), Path::new("/keys/x.key"));
        assert_eq!(Source::new(Path::new("x.toml"), "").beside(Path::new("x.key")), Path::new("x.key"));
    }
}
