//! EDGE: the sockets and the clock that drive an [`crate::engine::Engine`]. Nothing is decided here.

pub(crate) mod clock;
mod groups;
mod packet;
mod reserve;
pub(crate) mod server;
pub(crate) mod server6;
