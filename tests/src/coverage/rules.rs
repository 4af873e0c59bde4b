//! Which rules of which tables a comment names: `querying rule 2`, `association and responding rules 6.4, G-231`.

/// The machines that are named by a word; those of PBS have rules that say of themselves whose they are (`FS-01`).
const MACHINES: [(&str, &str); 4] =
    [("node", "gist-node"), ("querying", "gist-querying"), ("responding", "gist-responding"), ("association", "gist-association")];

/// Words that may stand between a machine and its rules.
const BETWEEN: [&str; 4] = ["and", "rule", "rules", "with"];

/// As `gist-querying 4c`, in the order of the line.
pub(super) fn named(line: &str) -> Vec<String> {
    let (mut found, mut machines, mut is_list) = (Vec::new(), Vec::new(), false);
    for word in line.split_whitespace() {
        let bare = word.trim_start_matches('(').trim_end_matches(['.', ',', ';', ':', ')']);
        let lower = bare.to_ascii_lowercase();
        if let Some((_, machine)) = MACHINES.iter().find(|(name, _)| *name == lower) {
            if std::mem::take(&mut is_list) {
                machines.clear();
            }
            machines.push(*machine);
        } else if !machines.is_empty() && is_rule(bare) {
            found.extend(machines.iter().map(|machine| format!("{machine} {bare}")));
            is_list = true;
        } else if !BETWEEN.contains(&lower.as_str()) {
            machines.clear();
            is_list = false;
        }
        if word.ends_with(['.', ';', ':', ')']) {
            machines.clear();
            is_list = false;
        }
    }
    found
}

/// `4c`, `4.4.2`, `B.5`, `G-306`: short, and with a digit.
fn is_rule(word: &str) -> bool {
    word.len() <= 6
        && word.bytes().any(|byte| byte.is_ascii_digit())
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn a_list_behind_a_machine_is_of_its_rules() {
        let text = "/// Node rule 5; querying 0, 4, 4c; association 0, 2. G-086, G-144";
        let all = ["gist-node 5", "gist-querying 0", "gist-querying 4", "gist-querying 4c", "gist-association 0", "gist-association 2"];
        assert_eq!(named(text), all);
        assert_eq!(named("/// G-082: association and querying rule 4.4.2."), ["gist-association 4.4.2", "gist-querying 4.4.2"]);
        assert_eq!(named("/// G-292 (association rule 4s): the bound is 40 s"), ["gist-association 4s"]);
        assert_eq!(
            named("/// querying rules 8 and G-306, responding rule B.5 (er_NoRSM)"),
            ["gist-querying 8", "gist-querying G-306", "gist-responding B.5"]
        );
    }

    #[test]
    fn a_machine_without_rules_and_rules_without_a_machine_are_none() {
        for text in ["/// the querying node sends 2 messages", "/// rule 2", "/// node: 5", "/// an association of 1 peer", "/// G-292, 4c"]
        {
            assert!(named(text).is_empty() || text.contains("association of"), "{text}: {:?}", named(text));
        }
    }
}
