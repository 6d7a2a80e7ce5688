//! EDGE: the host's end of a guest's NIC. One open tap queue: its ioctls, and reads and writes of frames.
