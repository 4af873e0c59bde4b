//! What a person reads of the coverage.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use super::{Coverage, Mutation, Requirement, Shown, Transition};

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
        writeln!(f, "\n{} of {} rows are named by a test\n", self.requirements.len() - missing, self.requirements.len())?;
        self.transitions(f)
    }
}

impl Coverage {
    fn transitions(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut machines: BTreeMap<&str, Vec<&Transition>> = BTreeMap::new();
        self.transitions.iter().for_each(|transition| machines.entry(&transition.machine).or_default().push(transition));
        let ran = self.mutation.is_some();
        writeln!(f, "machine           transitions  named by a test  taken by one  a mutant caught")?;
        for (machine, of) in &machines {
            let count = |is: &dyn Fn(&Transition) -> bool| of.iter().filter(|transition| is(transition)).count();
            let named = count(&|of| !of.tests.is_empty());
            let taken = count(&|of| of.taken_by.as_ref().is_some_and(|tests| !tests.is_empty()));
            let caught = count(&|of| of.mutants.is_some_and(|mutants| mutants.caught > 0));
            let (taken, caught) = if ran { (taken.to_string(), caught.to_string()) } else { ("?".to_owned(), "?".to_owned()) };
            writeln!(f, "{machine:<16}  {:>11}  {named:>15}  {taken:>12}  {caught:>15}", of.len())?;
        }
        let list = |f: &mut Formatter<'_>, what: &str, of: Vec<&Transition>| {
            if !of.is_empty() {
                writeln!(f, "\n{} transitions {what}:", of.len())?;
            }
            of.iter().try_for_each(|transition| writeln!(f, "  {}", transition.name()))
        };
        let all = || self.transitions.iter();
        let is_untaken = |of: &&Transition| !of.tests.is_empty() && of.taken_by.as_ref().is_some_and(Vec::is_empty);
        let is_unseen = |of: &&Transition| of.mutants.is_some_and(|mutants| mutants.tried > 0 && mutants.caught == 0);
        list(f, "named by no test", all().filter(|of| of.tests.is_empty()).collect())?;
        list(f, "taken by no test that names it", all().filter(is_untaken).collect())?;
        list(f, "of whose mutants none was caught", all().filter(is_unseen).collect())?;
        let Some(Mutation { seed, of, excused, tried, caught, survivors }) = &self.mutation else {
            return write!(f, "\nno run of these sources is recorded: `pbs-lab coverage --mutate N` says which are taken and caught");
        };
        if !survivors.is_empty() {
            writeln!(f, "\n{} mutants that no test noticed that names the transition:", survivors.len())?;
        }
        survivors.iter().try_for_each(|survivor| writeln!(f, "  {survivor}"))?;
        let score = self.mutation.as_ref().map_or(0.0, Mutation::score);
        let covered = self.transitions.iter().filter(|transition| transition.is_covered()).count();
        writeln!(f, "\n{covered} of {} transitions are named, taken, and caught when broken", self.transitions.len())?;
        write!(
            f,
            "{caught} of {tried} mutants caught, {score:.1} % (seed {seed}; of {of}, {excused} of them equivalent by a written reason)"
        )
    }
}
