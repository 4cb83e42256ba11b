//! A small poll multiplexer on mio: streams, timers, wake-ups, child processes, ptys and signals in one private thread.
