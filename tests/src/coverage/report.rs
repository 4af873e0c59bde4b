//! What a person reads of the coverage.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use super::{Coverage, Requirement, Shown};

/// Identifiers on one line.
const ON_A_LINE: usize = 14;

impl Display for Coverage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut groups: BTreeMap<(&str, &str, &str), Vec<&Shown>> = BTreeMap::new();
        for shown in &self.requirements {
            let Requirement { id, document, level, .. } = &shown.requirement;
            let kind = id.split_once('-').map_or(id.as_str(), |(kind, _)| kind);
            groups.entry((document, kind, level.trim_end_matches('*'))).or_default().push(shown);
        }
        writeln!(f, "document      rows             shown by a test that names them")?;
        for ((document, kind, level), group) in &groups {
            let shown = group.iter().filter(|shown| !shown.tests.is_empty()).count();
            writeln!(f, "{document:<12}  {kind:<3} {level:<6}  {shown:>5} of {:>3}", group.len())?;
        }
        for ((document, kind, level), group) in &groups {
            let missing: Vec<_> = group.iter().filter(|shown| shown.tests.is_empty()).map(|shown| &*shown.requirement.id).collect();
            if !missing.is_empty() {
                writeln!(f, "\n{document}, {kind} {level}, named by no test:")?;
            }
            missing.chunks(ON_A_LINE).try_for_each(|line| writeln!(f, "  {}", line.join(" ")))?;
        }
        self.unknown.iter().try_for_each(|(id, test)| writeln!(f, "\n{test} names {id}, which no document lists"))?;
        let missing = self.missing().count();
        write!(f, "\n{} of {} rows are named by a test", self.requirements.len() - missing, self.requirements.len())
    }
}
