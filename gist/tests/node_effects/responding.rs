//! The responding machine (RFC 5971 §6.3) at the receiver, whose routers upstream are 1 and 3.
