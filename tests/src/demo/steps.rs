//! The steps of the demonstration in their order, and which of them others build upon.

use std::io;
use std::time::Duration;

use super::line::Line;
use super::site::Site;
use super::{consent, expiry, flipped, forged, grant, lifecycle, misused, over_budget, restart, signalling, sizes, tampered, tcp};

/// Some lines that are tried together.
pub(super) struct Step {
    name: &'static str,
    /// What a person is told.
    pub(super) what: &'static str,
    /// The longest that it can take: the sum of what it waits for.
    pub(super) at_most: Duration,
    /// Earlier steps without which this one cannot be tried.
    needs: &'static [&'static str],
    /// Tries them.
    pub(super) run: fn(&mut Site) -> io::Result<Vec<Line>>,
}

const fn step(
    name: &'static str,
    (what, at_most_s): (&'static str, u64),
    needs: &'static [&'static str],
    run: fn(&mut Site) -> io::Result<Vec<Line>>,
) -> Step {
    Step { name, what, at_most: Duration::from_secs(at_most_s), needs, run }
}

/// Those that wait for time to pass begin early and look late; those that need other daemons come last.
static STEPS: [Step; 18] = [
    step("before", ("starting router and receiver; sending without asking", 35), &[], grant::before_permission),
    step("granted", ("asking for permissions, sending files over UDP", 50), &["before"], grant::granted),
    step("forged", ("attacks against living permissions and signalling", 20), &["granted"], forged::attacks),
    step("abandoned", ("permissions whose ends will vanish", 60), &["before"], expiry::abandon),
    step("denied", ("what is not asked for, what is declined", 10), &["before"], grant::denied),
    step("tcp", ("sending files over TCP", 110), &["before"], tcp::files),
    step("sizes", ("large datagrams, and such as must not be fragmented", 35), &["before"], sizes::large_and_unfragmentable),
    step("signalling", ("signalling of another application", 5), &["before"], signalling::passed_on),
    step("ended", ("giving permissions back, taking them back", 40), &["before"], lifecycle::ended),
    step("flipped", ("packets held back on the way, changed, and sent on", 30), &["before"], flipped::on_the_way),
    step("over-budget", ("sending more than allowed, honestly", 40), &["before"], over_budget::honest_sender),
    step("expiry", ("waiting until dead ends have been silent for 3.5 T", 20), &["abandoned"], expiry::expired),
    step("refreshed", ("waiting until a permission is older than 3.5 T", 20), &["sizes"], lifecycle::refreshed),
    step("lying-sender", ("sending more than allowed, lying", 60), &["before"], over_budget::lying_sender),
    step("router-killed", ("killing the router, starting it again", 100), &["before"], restart::router_killed),
    step("tampered", ("a router that tampers with Permissions", 40), &["before"], tampered::permissions),
    step("consent", ("a Permission that nobody asked for", 30), &["before"], consent::unasked),
    step("misused", ("the key of a living permission, used for something else", 35), &["before"], misused::by_key_holder),
];

/// The steps called so with all that they need, in order; every step if none is called.
pub(super) fn chosen(only: &[String]) -> io::Result<Vec<&'static Step>> {
    if let Some(unknown) = only.iter().find(|name| STEPS.iter().all(|step| step.name != name.as_str())) {
        let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        return Err(io::Error::other(format!("no step is called `{unknown}`; there are {}", names.join(", "))));
    }
    let mut wanted: Vec<&str> = only.iter().map(String::as_str).collect();
    let mut chosen = Vec::new();
    for step in STEPS.iter().rev() {
        if only.is_empty() || wanted.contains(&step.name) {
            wanted.extend(step.needs);
            chosen.push(step);
        }
    }
    chosen.reverse();
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_comes_with_everything_it_needs_and_nothing_else() {
        let names = |only: &str| -> Vec<&str> { chosen(&[only.to_owned()]).unwrap().iter().map(|step| step.name).collect() };
        assert_eq!(names("expiry"), ["before", "abandoned", "expiry"]);
        assert_eq!(names("forged"), ["before", "granted", "forged"]);
        assert_eq!(chosen(&[]).unwrap().len(), STEPS.len());
        assert!(chosen(&["unheard-of".to_owned()]).is_err());
    }

    #[test]
    fn every_step_needs_only_earlier_ones() {
        for (place, step) in STEPS.iter().enumerate() {
            assert!(step.needs.iter().all(|need| STEPS[..place].iter().any(|earlier| earlier.name == *need)), "{}", step.name);
        }
    }
}
