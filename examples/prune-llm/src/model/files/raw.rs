//! Tensors as the bytes that safetensors files hold, without a copy in between.

use anyhow::{Context, Result, bail};
use bytemuck::Pod;
use candle_core::{CpuStorage, DType, Device, Shape, Storage, Tensor, WithDType};
use half::{bf16, f16};
use std::io::{Read, Write};

/// Reads a tensor's elements.
pub(super) fn read(reader: &mut dyn Read, dtype: DType, shape: &Shape) -> Result<Tensor> {
    match dtype {
        DType::F32 => read_elements::<f32>(reader, shape),
        DType::F16 => read_elements::<f16>(reader, shape),
        DType::BF16 => read_elements::<bf16>(reader, shape),
        other => bail!("cannot read elements of type {other:?}"),
    }
}

fn read_elements<T: Pod + WithDType>(reader: &mut dyn Read, shape: &Shape) -> Result<Tensor> {
    let mut elements = vec![T::zeroed(); shape.elem_count()];
    reader.read_exact(bytemuck::cast_slice_mut(&mut elements))?;
    Ok(Tensor::from_vec(elements, shape, &Device::Cpu)?)
}

/// Writes a tensor's elements.
pub(super) fn write(tensor: &Tensor, writer: &mut dyn Write) -> Result<()> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let (start, end) = layout
        .contiguous_offsets()
        .context("it is not contiguous")?;
    let bytes: &[u8] = match &*storage {
        Storage::Cpu(CpuStorage::F32(data)) => bytemuck::cast_slice(&data[start..end]),
        Storage::Cpu(CpuStorage::F16(data)) => bytemuck::cast_slice(&data[start..end]),
        Storage::Cpu(CpuStorage::BF16(data)) => bytemuck::cast_slice(&data[start..end]),
        _ => bail!("cannot write elements of type {:?}", tensor.dtype()),
    };
    Ok(writer.write_all(bytes)?)
}
