//! What the machines say to the packet side, and what it answers.
//!
//! Each command carries a [`Token`] that comes back in [`Event::Applied`] or [`Event::Failed`]. Commands must be carried
//! out in the order given. A Permission goes on, or leaves, only when its command has been applied (INV-11, P-144).

use core::time::Duration;

use bytes::Bytes;
use gist::api::PathId;
use gist::time::Instant;

use crate::credentials::{SignatureScheme, VerifiedKey, rsa_octets};
use crate::detection::Count;
use crate::flow::FlowId;
use crate::wire::{SharedKey, SymmetricAlgorithm};

/// Names one command; never used twice by a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// One change to the table of permissions, or a question about it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Command {
    /// Adds a permission with its security association. At a sender it takes the place of the flow's former one.
    Install {
        /// Comes back in the answer.
        token: Token,
        /// The permission.
        grant: Grant,
    },
    /// Changes how much and how long; key, counter and window stay.
    Update {
        /// Comes back in the answer.
        token: Token,
        /// The flow.
        flow: FlowId,
        /// The epoch.
        spi: u32,
        /// AV in bytes, the absolute total of the epoch.
        allowed: u64,
        /// The new end.
        expires_at: Instant,
    },
    /// Removes a permission and wipes its key. Removing what is not there succeeds.
    Remove {
        /// Comes back in the answer.
        token: Token,
        /// The flow.
        flow: FlowId,
        /// The epoch.
        spi: u32,
    },
    /// Lets an old epoch run out under its own volume.
    Drain {
        /// Comes back in the answer.
        token: Token,
        /// The flow.
        flow: FlowId,
        /// The old epoch.
        spi: u32,
        /// When it ends at the latest.
        until: Instant,
    },
    /// Asks for what a sender's volume is compared with (appendix E), and changes nothing; answered by [`Event::Compared`].
    Compare {
        /// Comes back in the answer.
        token: Token,
        /// The flow.
        flow: FlowId,
        /// The epoch.
        spi: u32,
        /// The sender's last number N.
        up_to: u32,
        /// How much longer than data the Query that named it may have travelled.
        delay: Duration,
    },
    /// Asks for the counted volume and the highest number, and changes nothing.
    Snapshot {
        /// Comes back in the answer.
        token: Token,
        /// The flow.
        flow: FlowId,
        /// The epoch.
        spi: u32,
    },
    /// Holds the packets of a flow that is asked for already, without [`Event::FirstPacket`] (sender only; X-57).
    Expect {
        /// Comes back in the answer.
        token: Token,
        /// The flow.
        flow: FlowId,
        /// When the answer to the Query is there at the latest.
        until: Instant,
    },
    /// Sends the packets held for a flow as far as its permission allows (sender only).
    ReleaseHeld {
        /// Comes back in the answer.
        token: Token,
        /// The flow.
        flow: FlowId,
    },
    /// Has the packets of a flow leave by another way from now on (sender only). Nothing is said about it but that it is done.
    Route {
        /// Comes back in the answer.
        token: Token,
        /// The flow.
        flow: FlowId,
        /// The way.
        path: PathId,
        /// Whether its packets are held until the permission is installed, updated or removed (FS-15).
        waits: bool,
    },
    /// Drops the packets held for a flow (sender only).
    DropHeld {
        /// Comes back in the answer.
        token: Token,
        /// The flow.
        flow: FlowId,
    },
}

impl Command {
    /// The command's token.
    pub fn token(&self) -> Token {
        match self {
            Self::Install { token, .. }
            | Self::Update { token, .. }
            | Self::Remove { token, .. }
            | Self::Drain { token, .. }
            | Self::Compare { token, .. }
            | Self::Snapshot { token, .. }
            | Self::Expect { token, .. }
            | Self::ReleaseHeld { token, .. }
            | Self::Route { token, .. }
            | Self::DropHeld { token, .. } => *token,
        }
    }

    /// The flow concerned.
    pub fn flow(&self) -> FlowId {
        match self {
            Self::Install { grant, .. } => grant.flow,
            Self::Update { flow, .. }
            | Self::Remove { flow, .. }
            | Self::Drain { flow, .. }
            | Self::Compare { flow, .. }
            | Self::Snapshot { flow, .. }
            | Self::Expect { flow, .. }
            | Self::ReleaseHeld { flow, .. }
            | Self::Route { flow, .. }
            | Self::DropHeld { flow, .. } => *flow,
        }
    }
}

/// A permission as the packet side needs it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Grant {
    /// Which packets it covers.
    pub flow: FlowId,
    /// The epoch, [`crate::wire::SaParameters::FIRST_SPI`] or higher.
    pub spi: u32,
    /// How packets are authenticated.
    pub protection: Protection,
    /// AV in bytes, the absolute total of the epoch.
    pub allowed: u64,
    /// Where the counted volume starts, in bytes: the sent volume of the Query at a router, 0 elsewhere.
    pub counted: u64,
    /// Up to which sequence number packets are refused where the epoch is new to the packet side: the last one that the Query
    /// says its source has used in it, at a router; 0 elsewhere.
    pub highest: u32,
    /// When it ends; the earlier of the permission's time limit and its soft-state lifetime.
    pub expires_at: Instant,
}

/// How a flow's packets are authenticated.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Protection {
    /// Authentication Header with a code under a key that sender, routers and receiver share (Solution 2).
    Shared {
        /// Which code.
        algorithm: SymmetricAlgorithm,
        /// Its key.
        key: SharedKey,
    },
    /// Authentication Header with a signature by the flow's source, whose public key this is (Solution 3, X-70).
    SignedBy(SourceKey),
    /// The same at the source itself: its own private key signs.
    Signing,
}

/// The public key with which the packets of a source are verified.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SourceKey {
    /// How it signs.
    pub scheme: SignatureScheme,
    /// The content of the SubjectPublicKeyInfo's bit string.
    pub public_key: Bytes,
    /// Length of its signatures in octets.
    pub signature_length: u16,
}

impl SourceKey {
    /// The key of a verified certificate; `None` if packets cannot be signed with it.
    pub(crate) fn of(verified: &VerifiedKey) -> Option<Self> {
        let signature_length = match verified.scheme {
            SignatureScheme::Ed25519 | SignatureScheme::EcdsaP256 => 64,
            SignatureScheme::RsaPss => rsa_octets(&verified.public_key)?,
            SignatureScheme::EcdsaP384 => return None,
        };
        // A copy: the certificate that it is a part of is much longer, and may be forgotten earlier.
        let public_key = Bytes::copy_from_slice(&verified.public_key);
        Some(Self { scheme: verified.scheme, public_key, signature_length })
    }
}

/// From the packet side.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// A command has been carried out.
    Applied {
        /// The command's.
        token: Token,
        /// Counted volume in bytes (at a sender the sent volume) after the command, for a removal the final one.
        counted: u64,
        /// Highest sequence number counted, 0 before the first.
        highest: u32,
    },
    /// The answer to [`Command::Compare`].
    Compared {
        /// The command's.
        token: Token,
        /// What was counted.
        count: Count,
    },
    /// Two packets came under one number, both authenticated: somebody beside the sender holds the key (receiver only; E4).
    SecondHolder {
        /// The flow.
        flow: FlowId,
        /// The epoch.
        spi: u32,
    },
    /// A command could not be carried out; nothing has changed.
    Failed {
        /// The command's.
        token: Token,
        /// Why, for people.
        reason: String,
    },
    /// Packets of a flow without permission are held (sender only).
    FirstPacket {
        /// The flow.
        flow: FlowId,
    },
    /// Three quarters of the allowed volume are used up (sender only; X-36).
    NearlyUsedUp {
        /// The flow.
        flow: FlowId,
        /// The epoch.
        spi: u32,
    },
    /// An authenticated packet would exceed the allowed volume, or at a sender is held because it would.
    OverBudget {
        /// The flow.
        flow: FlowId,
        /// The epoch.
        spi: u32,
    },
}
