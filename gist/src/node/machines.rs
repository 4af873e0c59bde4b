//! The four state machines of RFC 5971 §6, generated from `fsm-specs/tables/gist/*.fsm`.

/// The node (RFC 5971 §6.1).
pub(super) mod node {
    include!(concat!(env!("OUT_DIR"), "/gist_node.rs"));
}

/// The querying end of a routing state (RFC 5971 §6.2).
pub(super) mod querying {
    include!(concat!(env!("OUT_DIR"), "/gist_querying.rs"));
}

/// The responding end of a routing state (RFC 5971 §6.3).
pub(super) mod responding {
    include!(concat!(env!("OUT_DIR"), "/gist_responding.rs"));
}

/// A messaging association (RFC 5971 §6.4).
pub(super) mod association {
    include!(concat!(env!("OUT_DIR"), "/gist_association.rs"));
}
