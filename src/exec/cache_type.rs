//! How an executor stores keys and values.

/// How cached keys and values are stored.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum CacheType {
    /// 4 bytes a value.
    F32,
    /// 2 bytes a value, two in a u32: needs no `shader-f16`.
    #[default]
    F16,
    /// Blocks of 32 signed bytes with an f16 scale: 8.5 bits a value.
    Q8_0,
}

impl CacheType {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::F16, Self::F32, Self::Q8_0];

    /// As options and shader files name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
        }
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// u32 that a vector of `head_dim` values takes.
    pub fn words(self, head_dim: u32) -> u32 {
        match self {
            Self::F32 => head_dim.next_multiple_of(4),
            Self::F16 => head_dim.next_multiple_of(4) / 2,
            Self::Q8_0 => head_dim.div_ceil(32) * 8 + head_dim.div_ceil(32).div_ceil(2),
        }
    }
}
