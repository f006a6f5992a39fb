//! Queries, keys and values, and attention over the cache.

use super::super::kernels::{
    AttentionParams, Choices, FamilyId, Variant, attention, attention_combine, attention_split,
    attention_tile, cache_store, matvec_qkv, qk_norm,
};
use super::fine::window_and_chunk;
use super::record::Recorder;
use super::trial::{TrialPlan, WIDTH};
use super::{Buffer, CacheType, Lowered, RowBucket, Rows, padded};
use crate::error::{Error, Result};
use crate::plan::{AttentionSpec, CacheSpec, Heads, Input, Mask, Op, Role, TensorId, ValueId};
use crate::quant::DType;

/// Attention is split where more positions than these are seen.
const SPLIT_FROM: u32 = 256;

/// How many splits a row at `pos` has at most.
pub fn splits(pos: u32, page_size: u32) -> u32 {
    (pos / page_size + 1)
        .div_ceil(attention_split::SPLIT_PAGES)
        .min(attention_split::MAX_SPLITS)
}

/// Fours of values of a head.
fn quads_of(heads: &Heads) -> Result<u32> {
    let quads = Lowered::head_stride(heads) / 4;
    if quads > attention::MAX_QUADS {
        return Err(Error::unsupported(format!(
            "heads of {} values; at most {}",
            heads.head_dim,
            attention::MAX_QUADS * 4
        )));
    }
    Ok(quads)
}

impl Lowered {
    /// Positions seen by one row from which on steps are recorded with split attention; `None`: never.
    pub fn split_from(&self) -> Option<u32> {
        if let Some(trial) = &self.settings.trial {
            return trial.split.then_some(0);
        }
        let wrong = self.settings.wrong.iter().any(|variant| {
            matches!(
                variant.family,
                FamilyId::AttentionSplit | FamilyId::AttentionCombine
            )
        });
        let longest = self.settings.limits.max_context();
        (self.settings.tuning.splits && !wrong && longest > SPLIT_FROM).then_some(SPLIT_FROM)
    }

    /// Where new keys and values go at first.
    pub(super) fn new_keys(&self, cache: usize) -> Buffer {
        if self.settings.cache == CacheType::Q8_0 {
            Buffer::CacheRows
        } else {
            Buffer::Cache(cache)
        }
    }

    /// f32 values of a row in [`Buffer::AttentionParts`].
    pub fn attention_parts_stride(heads: &Heads) -> u32 {
        heads.heads * attention_split::MAX_SPLITS * (Self::head_stride(heads) + 4)
    }

    /// u32 index of the second rope table.
    pub fn rope_high(pairs: u32) -> u32 {
        matvec_qkv::ROPE_LOW * pairs
    }

    /// cos and sin of every rope position up to `context`, as two tables whose angles add up.
    pub fn rope_table(&self, rope: usize, context: u32) -> Vec<[f32; 2]> {
        let rope = &self.plan.ropes[rope];
        let mut table = Vec::new();
        for low in 0..matvec_qkv::ROPE_LOW {
            for freq in &rope.inv_freq {
                let (sin, cos) = (f64::from(low) * freq).sin_cos();
                let m = f64::from(rope.magnitude);
                table.push([(cos * m) as f32, (sin * m) as f32]);
            }
        }
        for high in 0..context.div_ceil(matvec_qkv::ROPE_LOW) {
            for freq in &rope.inv_freq {
                let (sin, cos) = (f64::from(high * matvec_qkv::ROPE_LOW) * freq).sin_cos();
                table.push([cos as f32, sin as f32]);
            }
        }
        table
    }
}

impl Recorder<'_> {
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one fact about the product"
    )]
    pub(super) fn qkv(
        &mut self,
        part: usize,
        row_base: u32,
        input: Input,
        heads: &Heads,
        rope: Option<usize>,
        cache: usize,
        query: ValueId,
    ) -> Result<()> {
        let lowered = self.lowered;
        let read = self.read(input);
        let matrix = &lowered.parts[part];
        let pairs = rope.map_or(0, |r| lowered.plan.ropes[r].inv_freq.len() as u32);
        let head_stride = Lowered::head_stride(heads);
        let params = matvec_qkv::Params {
            matrix: matrix.params(),
            rows_at: self.rows_at,
            norm: read.norm,
            row_base,
            q_rows: heads.heads * heads.head_dim,
            kv_rows: heads.kv_heads * heads.head_dim,
            head_dim: heads.head_dim,
            head_stride,
            q_stride: heads.heads * head_stride,
            kv_heads: heads.kv_heads,
            rope_pairs: pairs,
            rope_high: Lowered::rope_high(pairs),
            pages_at: lowered.state.pages_at,
            pages_per_seq: lowered.settings.limits.max_pages_per_seq,
        };
        let bindings = matvec_qkv::Bindings {
            weights: Buffer::Weights(part),
            scales: Buffer::Scales(part),
            input: read.input,
            state: Buffer::State,
            partials: read.partials,
            rope: Buffer::Rope(rope.unwrap_or(0)),
            query: lowered.buffer(query),
            cache: lowered.new_keys(cache),
        };
        let quads = (matrix.rows as u32).div_ceil(4);
        let dispatch = self.product(self.bucket, part, quads, params, &bindings)?;
        self.out.body.push(dispatch);
        Ok(())
    }

    /// See [`Op::QkNorm`](crate::plan::Op::QkNorm).
    pub(super) fn qk_norm(
        &mut self,
        heads: &Heads,
        cache: usize,
        eps: f32,
        weights: Option<[TensorId; 2]>,
        rope: Option<usize>,
        query: ValueId,
    ) -> Result<()> {
        let lowered = self.lowered;
        let rope_pairs = rope.map_or(0, |rope| lowered.plan.ropes[rope].inv_freq.len() as u32);
        let params = qk_norm::Params {
            rows_at: self.rows_at,
            pages_at: self.lowered.state.pages_at,
            pages_per_seq: self.lowered.settings.limits.max_pages_per_seq,
            kv_heads: heads.kv_heads,
            heads: heads.heads,
            head_dim: heads.head_dim,
            head_stride: Lowered::head_stride(heads),
            eps,
            weighed: u32::from(weights.is_some()),
            rope_pairs,
            rope_high: Lowered::rope_high(rope_pairs),
        };
        let query = lowered.buffer(query);
        // What is not read must be bound all the same.
        let [query_weight, key_weight] =
            weights.map_or([Buffer::State; 2], |ids| ids.map(Buffer::Norm));
        let rope = Buffer::Rope(rope.unwrap_or(0));
        let cache = lowered.new_keys(cache);
        let bindings = qk_norm::Bindings {
            state: Buffer::State,
            query,
            cache,
            query_weight,
            key_weight,
            rope,
        };
        let groups = heads.heads + heads.kv_heads;
        let dispatch = self.push(self.choices(), params, &bindings, groups, Rows::Tokens(1))?;
        self.out.body.push(dispatch);
        Ok(())
    }

    pub(super) fn attention(
        &mut self,
        query: ValueId,
        spec: &AttentionSpec,
        out: ValueId,
    ) -> Result<()> {
        let lowered = self.lowered;
        let heads = spec.heads;
        let quads = quads_of(&heads)?;
        if lowered.settings.cache == CacheType::Q8_0 {
            self.cache_store(&heads, spec.cache)?;
        }
        // Queries of a tile: a multiple of 4 that fits. Where heads are too long for four, row by row.
        let queries =
            (attention_tile::QUERY_QUADS / quads / 4 * 4).min(attention_tile::MAX_QUERIES);
        let tiled = queries > 0 && self.can_tile();
        let params = self.attention_params(spec, quads, queries, tiled);
        let groups = heads.kv_heads * params.parts;
        let (state, query) = (Buffer::State, lowered.buffer(query));
        let (cache, output) = (Buffer::Cache(spec.cache), lowered.buffer(out));
        if tiled {
            let bindings = attention_tile::Bindings {
                state,
                query,
                cache,
                output,
            };
            let dispatch = self.push(
                self.choices(),
                params,
                &bindings,
                groups,
                Rows::Tokens(params.tile_tokens),
            )?;
            self.out.body.push(dispatch);
            return Ok(());
        }
        let choices = Choices {
            fours: Some(if params.part_heads > 4 { 2 } else { 1 }),
            ..self.choices()
        };
        let bindings = attention::Bindings {
            state,
            query,
            cache,
            output,
        };
        if !self.split {
            let dispatch = self.push(choices, params, &bindings, groups, Rows::Tokens(1))?;
            self.out.body.push(dispatch);
            return Ok(());
        }
        let parts = attention_split::Bindings {
            state,
            query,
            cache,
            output: Buffer::AttentionParts,
        };
        let mut dispatch = self.push(choices, params, &parts, groups, Rows::Tokens(1))?;
        dispatch.split = true;
        self.out.body.push(dispatch);
        self.attention_combine(&heads, spec.mask, output)
    }

    /// Parameters for heads of `quads` fours, with tiles of `queries` where it is `tiled`.
    fn attention_params(
        &self,
        spec: &AttentionSpec,
        quads: u32,
        queries: u32,
        tiled: bool,
    ) -> AttentionParams {
        let lowered = self.lowered;
        let AttentionSpec {
            heads,
            scale,
            mask,
            temperature,
            ..
        } = *spec;
        let (window, chunk) = window_and_chunk(mask);
        let group = heads.heads / heads.kv_heads;
        let most = match tiled {
            true => queries,
            false if quads * 8 <= attention::PART_QUADS => 8,
            false => 4,
        };
        let parts = group.div_ceil(most);
        let part_heads = group.div_ceil(parts);
        let mut keys = lowered.settings.limits.page_size;
        while keys * (quads + 1) > attention_tile::KEY_QUADS {
            keys /= 2;
        }
        AttentionParams {
            rows_at: self.rows_at,
            pages_at: lowered.state.pages_at,
            pages_per_seq: lowered.settings.limits.max_pages_per_seq,
            kv_heads: heads.kv_heads,
            group,
            part_heads,
            parts,
            head_dim: heads.head_dim,
            head_quads: quads,
            heads: heads.heads,
            out_stride: padded(heads.heads * heads.head_dim),
            scale,
            window,
            chunk,
            temperature: temperature.map_or(0.0, |t| t.scale),
            temperature_floor: temperature.map_or(1.0, |t| t.floor_scale),
            tile_tokens: queries / part_heads,
            keys,
        }
    }

    /// Whether rows may share tiles of keys.
    fn can_tile(&self) -> bool {
        let tile = Variant::new(FamilyId::AttentionTile, self.choices());
        let right = tile.is_some_and(|tile| !self.lowered.settings.wrong.contains(&tile));
        matches!(self.bucket, RowBucket::Many(_)) && right
    }

    /// Puts together what [`Buffer::AttentionParts`] holds of the parts of the visible positions.
    fn attention_combine(&mut self, heads: &Heads, mask: Mask, output: Buffer) -> Result<()> {
        let (window, chunk) = window_and_chunk(mask);
        let params = attention_combine::Params {
            rows_at: self.rows_at,
            heads: heads.heads,
            head_dim: heads.head_dim,
            head_quads: Lowered::head_stride(heads) / 4,
            out_stride: padded(heads.heads * heads.head_dim),
            window,
            chunk,
        };
        let bindings = attention_combine::Bindings {
            state: Buffer::State,
            partial: Buffer::AttentionParts,
            output,
        };
        let dispatch = self.push(
            self.choices(),
            params,
            &bindings,
            heads.heads,
            Rows::Tokens(1),
        )?;
        self.out.body.push(dispatch);
        Ok(())
    }

    pub(super) fn cache_store(&mut self, heads: &Heads, cache: usize) -> Result<()> {
        let params = cache_store::Params {
            rows_at: self.rows_at,
            pages_at: self.lowered.state.pages_at,
            pages_per_seq: self.lowered.settings.limits.max_pages_per_seq,
            kv_heads: heads.kv_heads,
            head_dim: heads.head_dim,
            head_stride: Lowered::head_stride(heads),
        };
        let bindings = cache_store::Bindings {
            state: Buffer::State,
            rows: Buffer::CacheRows,
            cache: Buffer::Cache(cache),
        };
        let dispatch = self.push(
            self.choices(),
            params,
            &bindings,
            2 * heads.kv_heads,
            Rows::Tokens(1),
        )?;
        self.out.body.push(dispatch);
        Ok(())
    }
}

impl Lowered {
    /// The trial of operation `at`, which has to do with attention: one group of the model's heads.
    pub(super) fn attention_trial(&self, at: usize, trial: &mut TrialPlan) -> Result<()> {
        let ops = &self.plan.ops;
        let mut before = ops[..=at].iter().rev();
        let Some(Op::QkvRope { q, heads, rope, .. }) =
            before.find(|op| matches!(op, Op::QkvRope { .. }))
        else {
            return Err(Error::internal("attention without queries"));
        };
        let dtype = self.plan.tensor(q.weight).dtype;
        let small = Heads {
            heads: heads.heads / heads.kv_heads,
            kv_heads: 1,
            head_dim: heads.head_dim,
        };
        trial.plan.caches = vec![CacheSpec {
            kv_heads: 1,
            head_dim: small.head_dim,
        }];
        let x = trial.stream();
        let qkv = [
            trial.linear(dtype, small.heads * small.head_dim, WIDTH)?,
            trial.linear(dtype, small.head_dim, WIDTH)?,
            trial.linear(dtype, small.head_dim, WIDTH)?,
        ];
        let input = x.normed(trial.norm);
        let mut query = trial.plan.qkv_rope(input, qkv, small, *rope, 0);
        if let Op::QkvRope { .. } = &ops[at] {
            trial.outputs = vec![Role::Query];
            return Ok(());
        }
        if let Op::QkNorm { weights, rope, .. } = &ops[at] {
            let weights = match weights {
                Some(_) => Some([
                    trial.tensor(DType::F32, 1, small.head_dim)?,
                    trial.tensor(DType::F32, 1, small.head_dim)?,
                ]),
                None => None,
            };
            query = trial.plan.qk_norm(query, small, 0, 1e-5, weights, *rope);
        }
        // What the cache holds shows in what attention makes of it.
        let Some(Op::Attention { spec, .. }) = ops[at..]
            .iter()
            .find(|op| matches!(op, Op::Attention { .. }))
        else {
            return Err(Error::internal("queries without attention"));
        };
        let spec = AttentionSpec {
            heads: small,
            cache: 0,
            ..*spec
        };
        trial.plan.attention(query, spec);
        trial.outputs = vec![Role::Attention];
        trial.steps = vec![0, 37, 70, 101, 125];
        trial.as_model = true;
        Ok(())
    }
}
