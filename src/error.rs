//! Everything that can go wrong, each with both sides of what did not fit.

mod file;

pub use file::FileError;

/// What this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call could not be done.
///
/// Whatever the error, the caller's weights, masks and statistics are as they were before the call.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The statistics were gathered for a layer with another number of inputs.
    #[error(
        "the weights are {rows} x {columns}, so statistics of {columns} input features are needed, \
         but these have {features}; rows are outputs, columns are inputs: is the matrix transposed?"
    )]
    StatsShape {
        /// Rows of the weight matrix (outputs).
        rows: usize,
        /// Columns of the weight matrix (inputs).
        columns: usize,
        /// Input features that the statistics cover.
        features: usize,
    },
    /// A batch of activations has another number of columns than the statistics have features.
    #[error(
        "these statistics have {features} input features, but the batch has {columns} columns; \
         a batch is [tokens, features]"
    )]
    BatchShape {
        /// Input features that the statistics cover.
        features: usize,
        /// Columns of the batch.
        columns: usize,
    },
    /// There is not one weight for each token of a batch.
    #[error("the batch has {tokens} tokens, but there are {weights} token weights")]
    TokenWeightCount {
        /// Rows of the batch.
        tokens: usize,
        /// Token weights given.
        weights: usize,
    },
    /// A token weight is negative, infinite or not a number.
    #[error("the weight of token {token} is {weight}; it must be finite and not negative")]
    InvalidTokenWeight {
        /// Row of the batch.
        token: usize,
        /// The weight given.
        weight: f64,
    },
    /// Statistics to merge were gathered for different numbers of features.
    #[error("cannot merge statistics of {left} input features with statistics of {right}")]
    MergeFeatures {
        /// Features on the receiving side.
        left: usize,
        /// Features of the statistics to be merged in.
        right: usize,
    },
    /// The metric needs activations, and none with a value other than zero were seen.
    #[error(
        "`{metric}` needs calibration data, but the statistics saw {tokens} tokens and no input \
         other than zero; feed activations with `update`, or use a metric of the weights alone"
    )]
    NoCalibration {
        /// What needs the data: as a rule a metric.
        metric: String,
        /// Tokens that the statistics saw.
        tokens: u64,
    },
    /// A second-order method was asked for without a Gram matrix.
    #[error("`{what}` needs the Gram matrix of the inputs; gather statistics with `Gram`")]
    NoGram {
        /// What was asked for.
        what: String,
    },
    /// The Gram matrix could not be factored, even with the most damping.
    #[error(
        "the Gram matrix is not positive definite at input {pivot}, even when damped by {damping} \
         times its diagonal; use more tokens, or ask for more damping"
    )]
    NotPositiveDefinite {
        /// Input, counted from zero, whose pivot was not positive.
        pivot: usize,
        /// The last damping tried, as a multiple of the diagonal or its mean.
        damping: f64,
    },
    /// A damping that is negative, infinite or not a number.
    #[error("a damping of {damping} was asked for; it must be finite and not negative")]
    InvalidDamping {
        /// The damping asked for.
        damping: f64,
    },
    /// A sweep in blocks of no columns.
    #[error("the sweep cannot take 0 columns at a time; at least 1 is needed")]
    InvalidBlockSize,
    /// An updated weight does not fit the type that weights are stored in.
    #[error(
        "the updated weight in row {row}, column {column} is {value}, \
         which the type it is stored in cannot hold"
    )]
    Overflow {
        /// Output, counted from zero.
        row: usize,
        /// Input, counted from zero.
        column: usize,
        /// The updated weight.
        value: f64,
    },
    /// An update left something of a weight that it says was pruned.
    #[error(
        "the update pruned the weight in row {row}, column {column}, but leaves {value}; it has to \
         remove all of it, so that +0.0 is left"
    )]
    NotPruned {
        /// Output, counted from zero.
        row: usize,
        /// Input, counted from zero.
        column: usize,
        /// What is left.
        value: f64,
    },
    /// A weight is infinite or not a number.
    #[error("the weight in row {row}, column {column} is {value}")]
    NonFiniteWeight {
        /// Output, counted from zero.
        row: usize,
        /// Input, counted from zero.
        column: usize,
        /// The value found.
        value: f64,
    },
    /// An activation is infinite or not a number.
    #[error("the activation of token {token}, feature {feature} is {value}")]
    NonFiniteActivation {
        /// Row of the batch.
        token: usize,
        /// Column of the batch.
        feature: usize,
        /// The value found.
        value: f64,
    },
    /// A statistic is negative, infinite or not a number, or too large for the weights' type.
    #[error("the statistic of input feature {feature} is {value}, which cannot be used")]
    InvalidStatistic {
        /// Input, counted from zero.
        feature: usize,
        /// The value found.
        value: f64,
    },
    /// A metric gave a score that is negative, infinite or not a number.
    #[error(
        "`{metric}` scored the weight in row {row}, column {column} as {score}; \
         a score must be finite and not negative"
    )]
    InvalidScore {
        /// Name of the metric.
        metric: String,
        /// Output, counted from zero.
        row: usize,
        /// Input, counted from zero.
        column: usize,
        /// The score found.
        score: f64,
    },
    /// A metric gave factors that are not one for every row or column of the layer.
    #[error("`{metric}` gave factors for {found} {side}, but the layer has {expected}")]
    FactorCount {
        /// Name of the metric.
        metric: String,
        /// Rows or columns.
        side: &'static str,
        /// Factors given.
        found: usize,
        /// Rows or columns of the layer.
        expected: usize,
    },
    /// The weight of an output that is not positive, or too large or small for the type computed in.
    #[error("the weight of output {output} is {weight}; it must be positive and finite")]
    InvalidOutputWeight {
        /// Row of the weight matrix.
        output: usize,
        /// The weight given.
        weight: f64,
    },
    /// A sparsity outside [0, 1).
    #[error("a sparsity of {sparsity} was asked for; it must be at least 0 and less than 1")]
    InvalidSparsity {
        /// The sparsity asked for.
        sparsity: f64,
    },
    /// A parameter of an allocation that is negative, infinite or not a number.
    #[error(
        "an allocation with a {parameter} of {value} was asked for; it must be finite and not \
         negative"
    )]
    InvalidAllocation {
        /// The parameter.
        parameter: &'static str,
        /// The value asked for.
        value: f64,
    },
    /// A number of weights to prune that the limits of the layers do not allow.
    #[error(
        "{total} weights were to be pruned, but the limits of the layers allow {least} to {most}; \
         every layer keeps at least 1"
    )]
    OutOfReach {
        /// Weights to prune in all layers together.
        total: usize,
        /// The least that the limits allow.
        least: usize,
        /// The most that the limits allow.
        most: usize,
    },
    /// Layers with so many weights that they cannot be shared out to the weight.
    #[error("the layers have more than {most} weights together")]
    TooManyWeights {
        /// The most there may be.
        most: u64,
    },
    /// An N:M pattern that keeps nothing or more than there is.
    #[error("cannot keep {keep} of every {of} weights; 1 <= keep <= of is needed")]
    InvalidGroup {
        /// Weights to keep.
        keep: usize,
        /// Weights in a group.
        of: usize,
    },
    /// A block without rows or columns.
    #[error("a block of {rows} x {columns} weights holds nothing; both sides must be at least 1")]
    InvalidBlock {
        /// Rows of a block.
        rows: usize,
        /// Columns of a block.
        columns: usize,
    },
    /// A text that names no pattern.
    #[error(
        "`{text}` is not a sparsity pattern: {reason}; write for example `0.5`, `2:4`, \
         `per-layer:0.5`, `per-input:0.5`, `block:16x4:0.5`, `cumulative:0.5` or `threshold:0.5`"
    )]
    ParsePattern {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A mask does not have the shape of the matrix it is used with.
    #[error(
        "the matrix is {rows} x {columns}, but the mask is {mask_rows} x {mask_columns}",
        rows = expected.0, columns = expected.1, mask_rows = found.0, mask_columns = found.1
    )]
    MaskShape {
        /// Rows and columns of the matrix.
        expected: (usize, usize),
        /// Rows and columns of the mask.
        found: (usize, usize),
    },
    /// An update that is not of the layer it was computed for.
    #[error(
        "the layer is {rows} x {columns}, but its update is {update_rows} x {update_columns}",
        rows = weights.0, columns = weights.1, update_rows = update.0, update_columns = update.1
    )]
    UpdateShape {
        /// Rows and columns of the weight matrix.
        weights: (usize, usize),
        /// Rows and columns of the update.
        update: (usize, usize),
    },
    /// A place outside a matrix or mask.
    #[error(
        "row {row}, columns {start} to {end} are not within {rows} rows and {columns} columns",
        end = start.saturating_add(*len)
    )]
    OutOfBounds {
        /// The row asked for.
        row: usize,
        /// The first column asked for.
        start: usize,
        /// How many columns were asked for.
        len: usize,
        /// Rows there are.
        rows: usize,
        /// Columns there are.
        columns: usize,
    },
    /// Scores that are not those of a block of columns.
    #[error("scores of {scores} columns are not those of columns {start} to {end} of a layer")]
    BlockShape {
        /// The first column of the block.
        start: usize,
        /// The column after its last.
        end: usize,
        /// Columns of the scores.
        scores: usize,
    },
    /// A matrix with more elements than memory can hold.
    #[error("no memory for {rows} x {columns}")]
    TooLarge {
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        columns: usize,
    },
    /// More weights are protected than the pattern lets live.
    #[error(
        "the pattern {pattern} has to prune the protected weight in row {row}, column {column}: \
         its group has too few others; protect fewer weights or ask for less sparsity"
    )]
    TooManyProtected {
        /// The pattern.
        pattern: String,
        /// Output, counted from zero.
        row: usize,
        /// Input, counted from zero.
        column: usize,
    },
    /// A matrix that does not have the pattern it should have.
    #[error("the matrix is not {pattern}: the weight in row {row}, column {column} should be zero")]
    PatternViolated {
        /// The pattern.
        pattern: String,
        /// Output, counted from zero.
        row: usize,
        /// Input, counted from zero.
        column: usize,
    },
    /// A matrix with fewer zeros than its pattern asks for.
    #[error("the matrix has a sparsity of {found}, but {pattern} asks for {expected}")]
    TooDense {
        /// The pattern.
        pattern: String,
        /// The least sparsity that fits the pattern.
        expected: f64,
        /// The sparsity found.
        found: f64,
    },
    /// A zero with its sign bit set, which sparse kernels may take for a weight.
    #[error("the zero in row {row}, column {column} is -0.0; pruned weights are +0.0")]
    NegativeZero {
        /// Output, counted from zero.
        row: usize,
        /// Input, counted from zero.
        column: usize,
    },
    /// What a metric, pattern, update or allocation outside this crate finds wrong, or what is wrong
    /// with its answer.
    #[error("{origin}: {reason}")]
    Custom {
        /// The metric, pattern, update or allocation.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// Stored data that does not fit together.
    #[error("damaged {what}: {reason}")]
    Damaged {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A product of two inputs that is larger than the product of their norms.
    #[error(
        "the Gram matrix has {product} for input features {first} and {second}, which is more than \
         their norms allow",
        first = features.0, second = features.1
    )]
    ImpossibleProduct {
        /// The two inputs, counted from zero.
        features: (usize, usize),
        /// The value found.
        product: f64,
    },
    /// Statistics of different kinds, norms and a Gram matrix, that were to be merged.
    #[error("cannot merge {left} with {right}; gather both in the same way")]
    MergeKinds {
        /// The kind on the receiving side.
        left: &'static str,
        /// The kind to be merged in.
        right: &'static str,
    },
    /// What is wrong with one of several layers.
    #[error("layer `{layer}`: {error}")]
    InLayer {
        /// The layer.
        layer: String,
        /// What is wrong.
        error: Box<Error>,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(FileError),
}
