//! The gateway over a simulated world, all in one program: each program of its own would compile the whole path anew.
#![recursion_limit = "512"]

mod background;
mod batches;
mod budgets;
mod cache;
mod coming_from;
mod documents;
mod facades;
mod fields;
mod front;
mod hedge;
mod jobs;
mod keys;
mod limits;
mod llm_exe;
mod messages;
mod metrics;
mod policies;
mod policy;
mod probes;
mod queue_events;
mod queues;
mod reload;
mod responses;
mod responses_kept;
mod signing;
mod sim;
mod soak;
mod world;
