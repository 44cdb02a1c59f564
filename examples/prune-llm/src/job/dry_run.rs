//! What would happen, without any of it.

use super::prune::output_folder;
use crate::{calibrate::Files, cli::PruneArgs, model::Location, plan::Plan, util::Progress};
use anyhow::Result;

/// Lists on standard output what a job would do with every layer.
pub fn dry_run(args: &PruneArgs, progress: Progress) -> Result<()> {
    let location = Location::find(args.input.data.model.as_deref(), progress)?;
    let output = output_folder(args, &location)?;
    let input = location.open()?;
    let model = &input.model;
    let plan = Plan::new(model.spec(), model.blocks(), args.recipe(), &args.layers)?;
    Files::given(&args.statistics, &plan)?;
    let recipe = &plan.recipe;
    println!("{}, {}:", input.name, recipe.name());
    println!(
        "preset {}: --method {} --update {} --pattern {} --order {} --target {} --damping {} \
         --output-weights={}",
        args.preset,
        recipe.method,
        recipe.update,
        recipe.pattern,
        recipe.order,
        recipe.target,
        recipe.damping,
        recipe.output_weights
    );
    let (mut layers, mut weights) = (0, 0);
    for (block, layer, pattern) in plan.layers() {
        let (rows, columns) = layer.shape;
        println!(
            "  {:<40} {rows:>6} x {columns:<6} {pattern}",
            layer.full_name(block)
        );
        layers += 1;
        weights += rows * columns;
    }
    println!(
        "{layers} layers with {weights} weights would be pruned, and the model written to `{}`",
        output.display()
    );
    Ok(())
}
