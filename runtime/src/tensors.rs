//! Borrowed tensors: what a caller hands to a session.

use mcc_ir::{DType, Tensor};

macro_rules! borrowed {
    ($($variant:ident, $element:ty;)*) => {
        /// The elements of one input, row-major.
        #[derive(Clone, Copy, Debug)]
        pub enum TensorRef<'a> {
            $($variant(&'a [$element]),)*
        }

        /// Where the elements of one output go, row-major.
        #[derive(Debug)]
        pub enum TensorMut<'a> {
            $($variant(&'a mut [$element]),)*
        }

        impl TensorRef<'_> {
            pub fn dtype(&self) -> DType {
                match self {
                    $(TensorRef::$variant(_) => DType::$variant,)*
                }
            }

            /// Number of elements.
            pub fn len(&self) -> usize {
                match self {
                    $(TensorRef::$variant(s) => s.len(),)*
                }
            }

            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            pub(crate) fn as_ptr(&self) -> *const u8 {
                match self {
                    $(TensorRef::$variant(s) => s.as_ptr().cast(),)*
                }
            }
        }

        impl TensorMut<'_> {
            pub fn dtype(&self) -> DType {
                match self {
                    $(TensorMut::$variant(_) => DType::$variant,)*
                }
            }

            /// Number of elements.
            pub fn len(&self) -> usize {
                match self {
                    $(TensorMut::$variant(s) => s.len(),)*
                }
            }

            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
                match self {
                    $(TensorMut::$variant(s) => s.as_mut_ptr().cast(),)*
                }
            }
        }

        $(
            impl<'a> From<&'a [$element]> for TensorRef<'a> {
                fn from(elements: &'a [$element]) -> Self {
                    TensorRef::$variant(elements)
                }
            }

            impl<'a> From<&'a Vec<$element>> for TensorRef<'a> {
                fn from(elements: &'a Vec<$element>) -> Self {
                    TensorRef::$variant(elements)
                }
            }

            impl<'a> From<&'a mut [$element]> for TensorMut<'a> {
                fn from(elements: &'a mut [$element]) -> Self {
                    TensorMut::$variant(elements)
                }
            }

            impl<'a> From<&'a mut Vec<$element>> for TensorMut<'a> {
                fn from(elements: &'a mut Vec<$element>) -> Self {
                    TensorMut::$variant(elements)
                }
            }
        )*

        /// Elements that a session's port takes, owned.
        pub(crate) enum Elements {
            $($variant(Vec<$element>),)*
        }

        impl Elements {
            /// Zeros; `None` for element types that no port has.
            pub fn zeroed(dtype: DType, len: usize) -> Option<Elements> {
                match dtype {
                    $(DType::$variant => Some(Elements::$variant(vec![Default::default(); len])),)*
                    _ => None,
                }
            }

            /// The elements of a tensor; `None` for element types that no port has.
            pub fn of(tensor: &Tensor) -> Option<Elements> {
                match tensor.dtype() {
                    $(DType::$variant => tensor.to_vec().map(Elements::$variant),)*
                    _ => None,
                }
            }

            pub fn as_ref(&self) -> TensorRef<'_> {
                match self {
                    $(Elements::$variant(v) => TensorRef::$variant(v),)*
                }
            }

            pub fn as_mut(&mut self) -> TensorMut<'_> {
                match self {
                    $(Elements::$variant(v) => TensorMut::$variant(v),)*
                }
            }

            pub fn into_tensor(self, shape: &[usize]) -> Tensor {
                match self {
                    $(Elements::$variant(v) => Tensor::new(shape, &v),)*
                }
            }
        }
    };
}

borrowed! {
    F32, f32;
    I64, i64;
    I32, i32;
    I16, i16;
    I8, i8;
    U8, u8;
    Bool, bool;
}
