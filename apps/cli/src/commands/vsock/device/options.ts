import { type Command, Option } from 'commander'
import { UsageError } from '../../../errors.js'
import { readConfig } from './config-file.js'
import { KEY_NAMES, KEYS, type KeyName } from './keys.js'
import { type Described, type Given, settingsOfAll } from './settings.js'
import { parseVm } from './vm-argument.js'

export interface DeviceOptions {
  vm?: readonly string[]
  config?: string
}

/** One device by options of its own, or any number by --vm or by --config. */
export function addDeviceOptions(command: Command): Command {
  for (const name of KEY_NAMES) for (const option of optionsFor(name)) command.addOption(option)
  const repeated = (text: string, before: readonly string[] = []) => [...before, text]
  return command
    .addOption(
      new Option('--vm <pairs>', 'a device as key=value,…, the keys being the options above; may be repeated').argParser(
        repeated,
      ),
    )
    .addOption(new Option('--config <file>', 'a YAML file with "vms:" and a list of devices; SIGHUP rereads it'))
}

function optionsFor(name: KeyName): Option[] {
  const { form, help } = KEYS[name]
  if (name === 'seqpacket') return [new Option('--seqpacket', help)]
  if (name !== 'half-close') return [new Option(`--${name} <${form}>`, help)]
  return [
    new Option('--half-close', "EOF of a client of --uds-path leaves the guest's direction open (default)"),
    new Option('--no-half-close', 'EOF of such a client ends both directions'),
  ]
}

/** The devices that the command line asks for. @throws UsageError */
export async function devicesOf(options: DeviceOptions): Promise<readonly Described[]> {
  const texts = textsOf(options)
  const { vm, config } = options
  const [first] = texts.keys()
  if (config !== undefined) {
    if (vm !== undefined) throw new UsageError('--vm', 'does not go with --config', 'Write all devices into the file.')
    if (first !== undefined) throw new UsageError(`--${first}`, 'does not go with --config', 'Write it into the file.')
    return devicesIn(config)
  }
  if (vm === undefined) return settingsOfAll([{ texts, ...ownOptions }])
  if (first !== undefined) throw new UsageError(`--${first}`, 'does not go with --vm', `Write ${first}=… into --vm.`)
  return settingsOfAll(vm.map(parseVm))
}

/** The devices of the file, as SIGHUP reads them again. @throws UsageError */
export async function devicesIn(config: string): Promise<readonly Described[]> {
  return settingsOfAll(await readConfig(config))
}

function textsOf(options: DeviceOptions): ReadonlyMap<KeyName, string> {
  const values = options as Readonly<Record<string, unknown>>
  const given = KEY_NAMES.map((name) => [name, values[new Option(`--${name}`).attributeName()]] as const)
  return new Map(given.flatMap(([name, value]) => (value === undefined ? [] : [[name, String(value)]])))
}

const ownOptions: Omit<Given, 'texts'> = {
  nameOf: (key) => `--${key}`,
  error: (key, what, next) => new UsageError(key === undefined ? '' : `--${key}`, what, next),
}
