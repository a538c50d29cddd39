//! The components that come with the program, built by `cargo xtask components` and part of its file.

/// The normaliser.
pub(crate) const NORMALISER: &[u8] = include_bytes!(env!("WITGATE_NORMALISER"));

/// The gateway as a component, for compositions.
pub(crate) const GATEWAY: &[u8] = include_bytes!(env!("WITGATE_GATEWAY"));

/// What stands in a composition for what is not there.
pub(crate) const ABSENT: &[u8] = include_bytes!(env!("WITGATE_ABSENT"));

/// The adapters, by the names that configurations use: those of `witgate_config::BUILTIN_ADAPTERS`.
pub(crate) const ADAPTERS: [(&str, &[u8]); 7] = [
    ("anthropic", include_bytes!(env!("WITGATE_ADAPTER_ANTHROPIC"))),
    ("bedrock", include_bytes!(env!("WITGATE_ADAPTER_BEDROCK"))),
    ("llama-cpp", include_bytes!(env!("WITGATE_ADAPTER_LLAMA_CPP"))),
    ("ollama", include_bytes!(env!("WITGATE_ADAPTER_OLLAMA"))),
    ("openai", include_bytes!(env!("WITGATE_ADAPTER_OPENAI"))),
    ("sagemaker", include_bytes!(env!("WITGATE_ADAPTER_SAGEMAKER"))),
    ("stub", include_bytes!(env!("WITGATE_ADAPTER_STUB"))),
];

/// The policies, by the names that configurations use: those of `witgate_config::BUILTIN_POLICIES`.
pub(crate) const POLICIES: [(&str, &[u8]); 2] = [
    ("guard", include_bytes!(env!("WITGATE_POLICY_GUARD"))),
    ("redactor", include_bytes!(env!("WITGATE_POLICY_REDACTOR"))),
];
