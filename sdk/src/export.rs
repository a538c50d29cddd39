//! The macro that makes a component of an adapter.

/// Exports an [`Adapter`](crate::Adapter) as a component of the world `witgate:adapter/adapter`, when it is built for
/// WebAssembly; elsewhere, as in tests, it checks the type and does nothing. Once in a crate.
///
/// ```
/// witgate_adapter_sdk::export!(witgate_adapter_sdk::OpenAi);
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
