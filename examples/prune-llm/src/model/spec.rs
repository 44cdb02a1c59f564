//! What a block consists of, as data: its linear layers with the inputs they read, and its norms.

/// The table of what every token becomes.
pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";
/// The norm after the last block.
pub(super) const FINAL_NORM: &str = "model.norm.weight";
/// The output head of a model whose head is not the embedding.
pub(super) const HEAD: &str = "lm_head.weight";

const BLOCKS: &str = "model.layers";

/// A linear layer of a block: what is pruned. Embedding, norms and output head are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSpec {
    /// The module inside a block of a Hugging Face checkpoint, such as `self_attn.q_proj`.
    pub name: &'static str,
    /// The same inside a block of a GGUF file, such as `attn_q`.
    pub gguf: &'static str,
    /// Outputs and inputs: the shape of the weight matrix.
    pub shape: (usize, usize),
    /// Which of the block's inputs it reads, numbered from 0 in the order of execution. Layers that
    /// read the same one share its statistics.
    pub input: usize,
    /// Whether its output is added to the hidden states.
    pub residual: bool,
    pub bias: bool,
    /// The heads whose rows GGUF files interleave, where they do.
    pub interleaved_heads: Option<usize>,
}

impl LayerSpec {
    /// The full name of the module in the block of this index.
    pub fn full_name(&self, block: usize) -> String {
        module_name(block, self.name)
    }

    /// The full name of the weights.
    pub fn weight_name(&self, block: usize) -> String {
        tensor_name(block, self.name, "weight")
    }
}

/// A norm of a block: one weight a feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormSpec {
    /// The module inside a block of a Hugging Face checkpoint.
    pub name: &'static str,
    /// The same inside a block of a GGUF file.
    pub gguf: &'static str,
    pub features: usize,
}

/// What each block of a model consists of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockSpec {
    /// In the order of execution.
    pub layers: Vec<LayerSpec>,
    pub norms: Vec<NormSpec>,
}

impl BlockSpec {
    /// How many inputs the layers read.
    pub fn inputs(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.input + 1)
    }

    /// The layers that read an input, each with its place in the list.
    pub fn readers(&self, input: usize) -> impl Iterator<Item = (usize, &LayerSpec)> {
        let layers = self.layers.iter().enumerate();
        layers.filter(move |(_, layer)| layer.input == input)
    }

    /// The names of the layers that read an input.
    pub fn reader_names(&self, input: usize) -> Vec<&'static str> {
        self.readers(input).map(|(_, layer)| layer.name).collect()
    }

    /// The layer that reads an input and adds its output to the hidden states, with its place in
    /// the list, if it is such an input.
    pub fn residual(&self, input: usize) -> Option<(usize, &LayerSpec)> {
        self.readers(input).find(|(_, layer)| layer.residual)
    }

    /// How many features an input has.
    pub fn features(&self, input: usize) -> usize {
        self.readers(input)
            .next()
            .map_or(0, |(_, layer)| layer.shape.1)
    }

    /// The number of weights in all layers.
    pub fn weights(&self) -> usize {
        let shapes = self.layers.iter().map(|layer| layer.shape);
        shapes.map(|(rows, columns)| rows * columns).sum()
    }

    /// Every tensor of the block of this index: its full name and its shape.
    pub fn tensors(&self, block: usize) -> impl Iterator<Item = (String, Vec<usize>)> {
        let layers = self.layers.iter().flat_map(move |layer| {
            let (rows, columns) = layer.shape;
            let bias = layer.bias.then(|| (bias_name(block, layer), vec![rows]));
            [(layer.weight_name(block), vec![rows, columns])]
                .into_iter()
                .chain(bias)
        });
        let norms = self.norms.iter().map(move |norm| {
            let name = tensor_name(block, norm.name, "weight");
            (name, vec![norm.features])
        });
        layers.chain(norms)
    }

    /// The layer of a module that GGUF files call so.
    pub fn layer_of_gguf(&self, part: &str) -> Option<&LayerSpec> {
        self.layers.iter().find(|layer| layer.gguf == part)
    }

    /// The name that a tensor of a GGUF file has in a Hugging Face checkpoint, if it has one.
    pub(super) fn name_of_gguf(&self, tensor: &str) -> Option<String> {
        let (block, part) = tensor.strip_prefix("blk.")?.split_once('.')?;
        let (part, kind) = part.rsplit_once('.')?;
        let norm = || self.norms.iter().find(|norm| norm.gguf == part);
        let layer = self.layer_of_gguf(part).map(|layer| layer.name);
        let module = layer.or_else(|| Some(norm()?.name))?;
        let known = matches!(kind, "weight" | "bias");
        known.then_some(tensor_name(block.parse().ok()?, module, kind))
    }
}

/// The block and the module of a layer's full name.
pub fn place(name: &str) -> Option<(usize, &str)> {
    let rest = name.strip_prefix(BLOCKS)?.strip_prefix('.')?;
    let (block, module) = rest.split_once('.')?;
    Some((block.parse().ok()?, module))
}

pub(super) fn bias_name(block: usize, layer: &LayerSpec) -> String {
    tensor_name(block, layer.name, "bias")
}

pub(super) fn tensor_name(block: usize, module: &str, kind: &str) -> String {
    format!("{}.{kind}", module_name(block, module))
}

/// The full name of a module of a block.
pub fn module_name(block: usize, module: &str) -> String {
    format!("{BLOCKS}.{block}.{module}")
}
