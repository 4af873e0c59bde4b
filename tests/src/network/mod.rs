//! Networks of the kernel's own namespaces and links, made by the laboratory itself.

pub mod capture;
pub mod firewall;
pub mod fork;
pub mod frame;
pub mod graph;
pub mod interception;
pub mod link;
pub mod namespace;
pub mod overlay;
pub mod relay;
pub mod silence;
pub mod topology;

pub(crate) mod sys;
