/** Faults in one package, which the tests of these projects have to notice. A fault that `hangs` blocks the process that runs the test. */
export const faultsIn =
  (folder, projects = [folder], parent = 'packages') =>
  (name, file, find, replace, { hangs = false } = {}) => ({
    name: `${folder}: ${name}`,
    file: `${parent}/${folder}/src/${file}`,
    find,
    replace,
    projects,
    hangs,
  })
