//! The macros that make a component of an adapter, or of a policy.

/// Exports an [`Adapter`](crate::Adapter) as a component of the world `witgate:adapter/adapter`, when it is built for
/// WebAssembly; elsewhere, as in tests, it checks the type and does nothing. Once in a crate.
///
/// ```
/// witgate_sdk::export!(witgate_sdk::OpenAi);
/// ```
#[macro_export]
macro_rules! export {
    ($adapter:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            use $crate::bindings;
            $crate::adapter_shell!($adapter, bindings);
        };

        #[cfg(not(target_family = "wasm"))]
        const _: fn() -> $crate::Description = <$adapter as $crate::Adapter>::describe;
    };
}

/// Exports a [`Policy`](crate::policy::Policy) as a component of the world `witgate:policy/policy`, when it is built for
/// WebAssembly; elsewhere, as in tests, it checks the type and does nothing. Once in a crate.
#[macro_export]
macro_rules! export_policy {
    ($policy:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            use $crate::policy_bindings as bindings;
            $crate::policy_shell!($policy, bindings);
        };

        #[cfg(not(target_family = "wasm"))]
        const _: fn() -> $crate::policy::Description = <$policy as $crate::policy::Policy>::describe;
    };
}
