//! What is configured of asynchronous jobs.

use std::time::Duration;

use crate::secret::Secret;
use crate::units::MIB;

/// Asynchronous jobs, files and batches.
#[derive(Clone, Debug)]
pub struct Jobs {
    /// Jobs that one process runs at once; 0 is none: then another process has to.
    pub concurrency: usize,
    /// Most jobs that wait, or run; one more is refused.
    pub max_queued: usize,
    /// Most times that a job is begun, before it counts as failed.
    pub attempts: u32,
    /// How long a job belongs to the process that runs it, unless that process says again that it does.
    pub lease: Duration,
    /// How long after its submission a job may still be begun.
    pub run_within: Duration,
    /// How long a job and its answer are kept when it has ended.
    pub kept_for: Duration,
    /// Largest answer that is kept, in bytes.
    pub max_answer_bytes: usize,
    /// Longest time that a client may wait for a job in one request.
    pub max_wait: Duration,
    /// What callbacks are signed with, `whsec_` and base64; without it there are none.
    pub callback_secret: Option<Secret>,
    /// Most times that a callback is sent until it is accepted.
    pub callback_attempts: u32,
    /// Callbacks may go to addresses of private networks and of this machine.
    pub allow_private_callbacks: bool,
    /// Largest file, in bytes.
    pub max_file_bytes: usize,
    /// How long a file is kept, not shorter than [`Jobs::run_within`].
    pub files_kept_for: Duration,
    /// Most requests of one batch.
    pub max_batch_requests: usize,
    /// Requests of one batch that run at once.
    pub batch_concurrency: usize,
}

impl Default for Jobs {
    fn default() -> Self {
        Jobs {
            concurrency: 16,
            max_queued: 10_000,
            attempts: 3,
            lease: Duration::from_secs(30),
            run_within: Duration::from_secs(24 * 3_600),
            kept_for: Duration::from_secs(24 * 3_600),
            max_answer_bytes: 8 * MIB as usize,
            max_wait: Duration::from_secs(60),
            callback_secret: None,
            callback_attempts: 8,
            allow_private_callbacks: false,
            max_file_bytes: 64 * MIB as usize,
            files_kept_for: Duration::from_secs(30 * 24 * 3_600),
            max_batch_requests: 10_000,
            batch_concurrency: 4,
        }
    }
}
