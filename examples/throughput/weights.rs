//! Numbers to work on: random ones, or a real layer's, repeated to any size.

use std::error::Error;

use wanda::ndarray::Array2;

/// Where weights come from.
pub(crate) enum Source {
    /// About normally distributed random numbers.
    Normal,
    /// A layer's weights.
    Layer(Array2<f32>),
}

impl Source {
    /// The tensor `weight` of a safetensors file, in `f32`.
    pub(crate) fn from_file(path: &str) -> Result<Self, Box<dyn Error>> {
        let bytes = std::fs::read(path)?;
        let file = safetensors::SafeTensors::deserialize(&bytes)?;
        let tensor = file.tensor("weight")?;
        let (safetensors::Dtype::F32, &[rows, columns]) = (tensor.dtype(), tensor.shape()) else {
            return Err(format!("`weight` in `{path}` is not a matrix of `f32`").into());
        };
        let numbers = tensor.data().as_chunks().0.iter().copied();
        let numbers = numbers.map(f32::from_le_bytes).collect();
        Ok(Self::Layer(Array2::from_shape_vec(
            (rows, columns),
            numbers,
        )?))
    }

    /// A matrix of weights: of a layer's, each copy times another number near 1, so that no two
    /// rows are the same.
    pub(crate) fn matrix(&self, rows: usize, columns: usize) -> Array2<f32> {
        match self {
            Self::Normal => Random::new().matrix(rows, columns),
            Self::Layer(layer) => {
                let (height, width) = layer.dim();
                let mut random = Random::new();
                let scales = Array2::from_shape_simple_fn(
                    (rows.div_ceil(height), columns.div_ceil(width)),
                    || 1.0 + 0.1 * random.next(),
                );
                Array2::from_shape_fn((rows, columns), |(i, j)| {
                    layer[[i % height, j % width]] * scales[[i / height, j / width]]
                })
            }
        }
    }
}

/// Marsaglia's xorshift.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }

    /// About normally distributed: the sum of four uniform numbers.
    pub(crate) fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let words = [0, 16, 32, 48].map(|shift| (self.0 >> shift & 0xFFFF) as f32);
        words.iter().sum::<f32>() / 65536.0 - 2.0
    }

    pub(crate) fn matrix(&mut self, rows: usize, columns: usize) -> Array2<f32> {
        Array2::from_shape_simple_fn((rows, columns), || self.next())
    }
}
