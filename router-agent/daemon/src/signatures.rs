//! `signatures` of section `[datapath]`: how many signatures of packets a node verifies.

use serde::Deserialize;
use traffic::verifier::SignatureBudget;

use crate::source::{ConfigError, Source};

/// Signatures a second, a quarter of them at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signatures {
    /// For one flow at most.
    pub per_flow: u32,
    /// For all flows together; each has an equal share of it for certain.
    pub in_all: u32,
}

impl Default for Signatures {
    fn default() -> Self {
        Self { per_flow: SignatureBudget::DEFAULT.per_second, in_all: SignatureBudget::NODE.per_second }
    }
}

impl Signatures {
    /// Refuses what would let no signed packet pass.
    ///
    /// # Errors
    ///
    /// The key that cannot be used.
    pub fn check(&self, source: &Source) -> Result<(), ConfigError> {
        for (key, number) in [("datapath.signatures.per_flow", self.per_flow), ("datapath.signatures.in_all", self.in_all)] {
            if number == 0 {
                return Err(source.wrong(key, "0 verifies none: no signed packet would pass"));
            }
        }
        Ok(())
    }

    /// The bound of a flow.
    pub const fn flow(&self) -> SignatureBudget {
        SignatureBudget::per_second(self.per_flow)
    }

    /// The bound of the node.
    pub const fn node(&self) -> SignatureBudget {
        SignatureBudget::per_second(self.in_all)
    }
}
