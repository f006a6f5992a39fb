//! How weights lie in buffers: tensors that share an input are stacked, and what is larger than a binding is cut.

use super::super::kernels::MatrixParams;
use super::Lowered;
use crate::error::{Error, Result};
use crate::plan::{Linear, TensorId};
use crate::quant::planes::PlaneLayout;
use std::ops::Range;

/// Rows of one or more tensors of the same type, stacked in one pair of buffers. Matrices larger than a binding may
/// be are cut into several parts.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixPart {
    /// Which rows of which tensors, in order.
    pub segments: Vec<(TensorId, Range<u64>)>,
    /// Bias rows that go with the segments.
    pub biases: Vec<(TensorId, Range<u64>)>,
    /// Layout of a row.
    pub layout: PlaneLayout,
    /// Stacked rows.
    pub rows: u64,
}

impl MatrixPart {
    /// Bytes of the quants buffer.
    pub fn weights_bytes(&self) -> u64 {
        self.rows * self.layout.quant_row_bytes()
    }

    /// u32 index of the bias in the scales buffer; 0: no bias.
    pub fn bias_at(&self) -> u64 {
        // One word apart from the scales, so that 0 can mean none even where there are no scales.
        if self.biases.is_empty() {
            0
        } else {
            self.rows * self.layout.scale_stride + 1
        }
    }

    /// What kernels are told of it.
    pub(super) fn params(&self) -> MatrixParams {
        MatrixParams {
            rows: self.rows as u32,
            blocks: self.layout.blocks as u32,
            scale_stride: self.layout.scale_stride as u32,
            bias_at: self.bias_at() as u32,
        }
    }

    /// Bytes of the scales buffer.
    pub fn scales_bytes(&self) -> u64 {
        let words = self.rows * self.layout.scale_stride;
        let words = if self.biases.is_empty() {
            words
        } else {
            words + 1 + self.rows
        };
        (words * 4).max(16)
    }
}

impl Lowered {
    /// Neighbours of the same type can share a matrix.
    pub(super) fn runs(&self, linears: &[Linear]) -> Vec<Vec<Linear>> {
        let mut runs: Vec<Vec<Linear>> = Vec::new();
        for linear in linears {
            let dtype = self.plan.tensor(linear.weight).dtype;
            match runs.last_mut() {
                Some(run) if self.plan.tensor(run[0].weight).dtype == dtype => run.push(*linear),
                _ => runs.push(vec![*linear]),
            }
        }
        runs
    }

    pub(super) fn layout(&self, weight: TensorId) -> PlaneLayout {
        let spec = self.plan.tensor(weight);
        PlaneLayout::new(spec.dtype, spec.cols)
    }

    /// Rows that fit one binding: a multiple of 4, so that no quad is cut.
    pub(super) fn rows_per_part(&self, layout: &PlaneLayout) -> Result<u64> {
        let row = layout.quant_row_bytes().max(layout.scale_row_bytes() + 4);
        let rows = self.settings.max_binding.saturating_sub(64) / row / 4 * 4;
        if rows == 0 {
            return Err(Error::unsupported(format!(
                "a row of {row} bytes is larger than this device can bind"
            )));
        }
        Ok(rows)
    }

    /// Registers the stacked rows of `linears`, once.
    pub(super) fn matrix(&mut self, linears: &[Linear]) -> Result<()> {
        let key: Vec<TensorId> = linears.iter().map(|l| l.weight).collect();
        if self.matrices.contains_key(&key) {
            return Ok(());
        }
        let layout = self.layout(key[0]);
        let most = self.rows_per_part(&layout)?;
        let with_bias = linears.iter().any(|l| l.bias.is_some());
        let mut indices = Vec::new();
        let mut part = MatrixPart {
            segments: Vec::new(),
            biases: Vec::new(),
            layout,
            rows: 0,
        };
        for linear in linears {
            let rows = self.plan.tensor(linear.weight).rows;
            let mut at = 0;
            while at < rows {
                if part.rows == most {
                    indices.push(self.parts.len());
                    let next = MatrixPart {
                        segments: Vec::new(),
                        biases: Vec::new(),
                        layout,
                        rows: 0,
                    };
                    self.parts.push(std::mem::replace(&mut part, next));
                }
                let take = (rows - at).min(most - part.rows);
                part.segments.push((linear.weight, at..at + take));
                if with_bias {
                    // A segment without a bias has rows of zeros there: the id of the weight marks it.
                    part.biases
                        .push((linear.bias.unwrap_or(linear.weight), at..at + take));
                }
                part.rows += take;
                at += take;
            }
        }
        indices.push(self.parts.len());
        self.parts.push(part);
        self.matrices.insert(key, indices);
        Ok(())
    }

    /// gate and up stacked (gate's rows of a part, then up's) if they share a type, else each for itself.
    pub(super) fn gate_up(&mut self, gate: Linear, up: Linear) -> Result<()> {
        if self.runs(&[gate, up]).len() == 2 {
            self.matrix(&[gate])?;
            return self.matrix(&[up]);
        }
        let key = vec![gate.weight, up.weight];
        let layout = self.layout(gate.weight);
        let most = self.rows_per_part(&layout)? / 8 * 4;
        if most == 0 {
            return Err(Error::unsupported(
                "two rows are larger than this device can bind",
            ));
        }
        let rows = self.plan.tensor(gate.weight).rows;
        let with_bias = gate.bias.is_some() || up.bias.is_some();
        let mut indices = Vec::new();
        for at in (0..rows).step_by(most as usize) {
            let range = at..(at + most).min(rows);
            let biases = if with_bias {
                vec![
                    (gate.bias.unwrap_or(gate.weight), range.clone()),
                    (up.bias.unwrap_or(up.weight), range.clone()),
                ]
            } else {
                Vec::new()
            };
            let rows = 2 * (range.end - range.start);
            indices.push(self.parts.len());
            let segments = vec![(gate.weight, range.clone()), (up.weight, range)];
            self.parts.push(MatrixPart {
                segments,
                biases,
                layout,
                rows,
            });
        }
        self.matrices.insert(key, indices);
        Ok(())
    }

    /// Registers stacked experts: of each expert the rows of every tensor, and whole experts in each part.
    pub(super) fn expert_matrix(&mut self, tensors: &[TensorId], count: u32) -> Result<()> {
        let spec = self.plan.tensor(tensors[0]);
        if let Some(other) = tensors
            .iter()
            .map(|id| self.plan.tensor(*id))
            .find(|other| other.dtype != spec.dtype)
        {
            return Err(Error::unsupported(format!(
                "{} is {} and {} is {}; experts' gate and up must share a type to run on the GPU",
                spec.name, spec.dtype, other.name, other.dtype
            )));
        }
        let layout = self.layout(tensors[0]);
        let rows: Vec<u64> = tensors
            .iter()
            .map(|id| self.plan.tensor(*id).rows / u64::from(count))
            .collect();
        let expert_rows: u64 = rows.iter().sum();
        let fit = self.rows_per_part(&layout)? / expert_rows;
        if fit == 0 {
            return Err(Error::unsupported(format!(
                "an expert of {} is larger than this device can bind",
                spec.name
            )));
        }
        let mut indices = Vec::new();
        let experts: Vec<u64> = (0..u64::from(count)).collect();
        for experts in experts.chunks(fit as usize) {
            let segment = |x: u64, i: usize| (tensors[i], x * rows[i]..(x + 1) * rows[i]);
            let segments = experts
                .iter()
                .flat_map(|x| (0..tensors.len()).map(move |i| segment(*x, i)))
                .collect();
            indices.push(self.parts.len());
            let rows = expert_rows * experts.len() as u64;
            self.parts.push(MatrixPart {
                segments,
                biases: Vec::new(),
                layout,
                rows,
            });
        }
        self.matrices.insert(tensors.to_vec(), indices);
        Ok(())
    }

    pub(super) fn parts_of(&self, linears: &[Linear]) -> Vec<usize> {
        let key: Vec<TensorId> = linears.iter().map(|l| l.weight).collect();
        self.matrices.get(&key).cloned().unwrap_or_default()
    }
}
