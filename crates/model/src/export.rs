//! The shell that makes a component of an [`Adapter`](crate::Adapter).

/// Exports an [`Adapter`](crate::Adapter) as a component of the world `witgate:adapter/adapter`. For crates two folders
/// below the root, as `components/*`, with `wit-bindgen` among their dependencies.
#[macro_export]
macro_rules! export_adapter {
    ($adapter:ty) => {
        mod bindings {
            wit_bindgen::generate!({
                path: "../../wit/adapter",
                world: "adapter",
                with: { "witgate:adapter/types@0.1.0": witgate_model::types },
            });
        }

        $crate::adapter_shell!($adapter, bindings);
    };
}

/// What a component of an [`Adapter`](crate::Adapter) consists of, over the bindings in the module `$bindings`.
#[doc(hidden)]
#[macro_export]
macro_rules! adapter_shell {
    ($adapter:ty, $bindings:ident) => {
        struct Shell;

        impl $bindings::exports::witgate::adapter::chat::Guest for Shell {
            type Decoder = ShellDecoder;

            fn describe() -> $crate::Description {
                <$adapter as $crate::Adapter>::describe()
            }

            fn probe(settings: String) -> Result<Option<$crate::HttpRequest>, $crate::Error> {
                <$adapter as $crate::Adapter>::probe(&settings)
            }

            fn encode(settings: String, request: $crate::Request) -> Result<$crate::HttpRequest, $crate::Error> {
                <$adapter as $crate::Adapter>::encode(&settings, request)
            }
        }

        struct ShellDecoder(std::cell::RefCell<<$adapter as $crate::Adapter>::Decoder>);

        impl $bindings::exports::witgate::adapter::chat::GuestDecoder for ShellDecoder {
            fn new(settings: String, context: Option<String>, head: $crate::ResponseHead) -> Self {
                ShellDecoder(std::cell::RefCell::new(<$adapter as $crate::Adapter>::decoder(&settings, context, head)))
            }

            fn feed(&self, frames: Vec<$crate::Frame>) -> Vec<$crate::Event> {
                $crate::Decoder::feed(&mut *self.0.borrow_mut(), frames)
            }

            fn finish(&self) -> Vec<$crate::Event> {
                $crate::Decoder::finish(&mut *self.0.borrow_mut())
            }
        }

        $bindings::export!(Shell with_types_in $bindings);
    };
}
