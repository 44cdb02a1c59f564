//! The tensors that a layer's statistics are stored as.

use safetensors::Dtype;

/// One of these tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Features,
    Tokens,
    Weight,
    Sums,
    Products,
    PendingF32,
    PendingF64,
    Checksums,
}

impl Part {
    pub(super) const ALL: [Self; 8] = [
        Self::Features,
        Self::Tokens,
        Self::Weight,
        Self::Sums,
        Self::Products,
        Self::PendingF32,
        Self::PendingF64,
        Self::Checksums,
    ];

    /// What every layer has, in the order of the checksums.
    pub(super) const NORMS: [Self; 4] = [Self::Features, Self::Tokens, Self::Weight, Self::Sums];

    /// What a Gram matrix has besides; their checksums follow.
    pub(super) const GRAM: [Self; 3] = [Self::Products, Self::PendingF32, Self::PendingF64];

    /// What follows the layer's name and a dot in the tensor's name.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Features => "features",
            Self::Tokens => "tokens",
            Self::Weight => "weight",
            Self::Sums => "sums",
            Self::Products => "products",
            Self::PendingF32 => "narrow",
            Self::PendingF64 => "wide",
            Self::Checksums => "crc32",
        }
    }

    /// The type its numbers have.
    pub(super) fn dtype(self) -> Dtype {
        match self {
            Self::Features | Self::Tokens => u64::DTYPE,
            Self::Weight | Self::Sums | Self::Products | Self::PendingF64 => f64::DTYPE,
            Self::PendingF32 => f32::DTYPE,
            Self::Checksums => u32::DTYPE,
        }
    }

    /// The tensor's name.
    pub(super) fn of(self, layer: &str) -> String {
        format!("{layer}.{}", self.suffix())
    }

    /// The layer and the part that a tensor's name stands for.
    pub(super) fn parse(tensor: &str) -> Option<(&str, Self)> {
        let (layer, suffix) = tensor.rsplit_once('.')?;
        let part = Self::ALL.into_iter().find(|part| part.suffix() == suffix)?;
        Some((layer, part))
    }
}

/// A number as files hold it.
pub(super) trait Number: Copy {
    const DTYPE: Dtype;
    /// Its bytes, the lowest first.
    type Bytes: AsRef<[u8]> + for<'a> TryFrom<&'a [u8]>;

    fn to_bytes(self) -> Self::Bytes;
    fn from_bytes(bytes: Self::Bytes) -> Self;
}

macro_rules! number {
    ($type:ty, $dtype:ident) => {
        impl Number for $type {
            const DTYPE: Dtype = Dtype::$dtype;
            type Bytes = [u8; size_of::<$type>()];

            fn to_bytes(self) -> Self::Bytes {
                self.to_le_bytes()
            }

            fn from_bytes(bytes: Self::Bytes) -> Self {
                Self::from_le_bytes(bytes)
            }
        }
    };
}

number!(u32, U32);
number!(u64, U64);
number!(f32, F32);
number!(f64, F64);
