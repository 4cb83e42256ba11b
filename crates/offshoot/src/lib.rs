//! Write distributed, self-replicating programs: grow agents over ssh, hop behind hop, in RAM.
