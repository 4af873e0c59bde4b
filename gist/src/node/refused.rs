//! How often what was refused, by the entry of the error catalogue it was refused for (RFC 5971 A.4.4).

use crate::wire::ErrorCause;

/// Entries of the catalogue.
const CAUSES: usize = ErrorCause::ALL.len();

/// Messages refused for each entry of the error catalogue, whether they were answered or not. A Confirm with a bad cookie that the node is
/// set not to answer is counted among `bad_responder_cookies` instead. Nothing ever counts down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Refused {
    too_short: u64,
    by_cause: [u64; CAUSES],
}

impl Default for Refused {
    fn default() -> Self {
        Self { too_short: 0, by_cause: [0; CAUSES] }
    }
}

impl Refused {
    /// `None` is what has not even a common header: the catalogue has no entry for that.
    pub(super) fn count(&mut self, cause: Option<ErrorCause>) {
        let count = match cause {
            None => Some(&mut self.too_short),
            Some(cause) => place(cause).and_then(|place| self.by_cause.get_mut(place)),
        };
        if let Some(count) = count {
            *count += 1;
        }
    }

    /// How many were refused for this entry.
    #[must_use]
    pub fn of(&self, cause: ErrorCause) -> u64 {
        place(cause).and_then(|place| self.by_cause.get(place)).copied().unwrap_or_default()
    }

    /// Every entry by its [`ErrorCause::word`], in the catalogue's order, behind what is `too_short` for a common header.
    pub fn by_word(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let causes = ErrorCause::ALL.into_iter().map(|cause| (cause.word(), self.of(cause)));
        core::iter::once(("too_short".to_owned(), self.too_short)).chain(causes)
    }
}

fn place(cause: ErrorCause) -> Option<usize> {
    ErrorCause::ALL.into_iter().position(|known| known == cause)
}

#[cfg(feature = "ipc")]
impl serde::Serialize for Refused {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.by_word())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_entry_has_a_word_and_a_count_of_its_own() {
        let mut refused = Refused::default();
        ErrorCause::ALL.into_iter().for_each(|cause| refused.count(Some(cause)));
        refused.count(None);
        let words: BTreeSet<String> = refused.by_word().map(|(word, _)| word).collect();
        assert_eq!(words.len(), CAUSES + 1);
        assert!(refused.by_word().all(|(_, count)| count == 1));
        assert!(words.iter().all(|word| word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_')), "{words:?}");
        assert!(words.contains("invalid_r_flag") && words.contains("unrecognised_object"), "{words:?}");
    }
}
