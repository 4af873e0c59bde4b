//! Without the privilege to make networks, a network test fails in CI, and elsewhere says in one line why it is skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};

const NOBODY: u32 = 65534;

/// Not a test of its own: the one below runs it without privileges.
#[test]
#[ignore = "run by another test, as somebody else"]
fn stand_in_for_a_network_test() {
    assert!(!pbs_lab::may_make_networks(), "whoever ran this has the privilege");
    assert!(!pbs_lab::may_make_networks(), "and has it still");
}

/// This program where anybody can start it.
struct Copy(PathBuf);

impl Copy {
    fn make() -> Self {
        let copy = Self(std::env::temp_dir().join(format!("pbs-lab-privileges-{}", std::process::id())));
        std::fs::copy(std::env::current_exe().unwrap(), &copy.0).unwrap();
        std::fs::set_permissions(&copy.0, Permissions::from_mode(0o755)).unwrap();
        copy
    }

    /// Runs the stand-in as nobody, with this value of `CI`.
    fn run(&self, ci: Option<&str>) -> Output {
        let mut command = Command::new(&self.0);
        command.args(["--ignored", "--exact", "stand_in_for_a_network_test"]).current_dir("/").env_remove("CI");
        if nix::unistd::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        if let Some(value) = ci {
            command.env("CI", value);
        }
        command.output().unwrap()
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn what_cannot_run_fails_in_ci_and_is_skipped_with_one_line_elsewhere() {
    let program = Copy::make();
    for (ci, may_skip) in [(Some("true"), false), (Some("1"), false), (None, true), (Some(""), true), (Some("false"), true)] {
        let output = program.run(ci);
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.success(), may_skip, "CI={ci:?}: {stdout}{stderr}");
        assert!(stdout.contains("running 1 test"), "{stdout}");
        let said = stderr.lines().filter(|line| line.starts_with("skipped: network namespaces need root")).count();
        assert_eq!(said, usize::from(may_skip), "CI={ci:?}: {stderr}");
        assert_eq!(stdout.contains("must not be skipped in CI"), !may_skip, "CI={ci:?}: {stdout}");
    }
}
