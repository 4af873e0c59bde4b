//! The messaging association machine (RFC 5971 §6.4) between sender and router.
