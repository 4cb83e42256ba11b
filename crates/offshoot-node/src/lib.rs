//! One running offshoot node: broker thread, services and blocking handles.
