import { type Command, Option } from 'commander'
import { UsageError } from '../../../errors.js'
import { type Config, readConfig } from './config-file.js'
import { KEY_NAMES, KEYS, type KeyName, LINK_KEY_NAMES, LINK_KEYS, type LinkKeyName } from './keys.js'
import { type DescribedLinks, linksOf } from './link-settings.js'
import { type Described, type Given, settingsOfAll } from './settings.js'
import { parseVm } from './vm-argument.js'

export interface DeviceOptions {
  vm?: readonly string[]
  config?: string
  metrics?: string
  pcap?: string
}

/** What the command is to serve. */
export interface Wanted {
  readonly devices: readonly Described[]
  readonly links: DescribedLinks
}

/** One device by options of its own, or any number by --vm or by --config. */
export function addDeviceOptions(command: Command): Command {
  for (const name of KEY_NAMES) for (const option of optionsFor(name)) command.addOption(option)
  const repeated = (text: string, before: readonly string[] = []) => [...before, text]
  for (const name of LINK_KEY_NAMES) command.addOption(new Option(`--${name} <${LINK_KEYS[name].form}>`, LINK_KEYS[name].help))
  return command
    .addOption(
      new Option('--vm <pairs>', 'a device as key=value,…, the keys being the options above; may be repeated').argParser(
        repeated,
      ),
    )
    .addOption(new Option('--config <file>', 'a YAML file with "vms:" and a list of devices; SIGHUP rereads it'))
    .addOption(
      new Option(
        '--metrics <address>',
        'serve metrics for Prometheus at http://<host>:<port>/metrics; a port alone is on 127.0.0.1',
      ),
    )
    .addOption(new Option('--pcap <file>', 'capture the packets of all devices for Wireshark'))
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

/** What the command line asks for. @throws UsageError */
export async function wantedBy(options: DeviceOptions): Promise<Wanted> {
  const texts = textsOf(options, KEY_NAMES)
  const linkTexts = textsOf(options, LINK_KEY_NAMES)
  const { vm, config } = options
  const [first] = texts.keys()
  const [firstLink] = linkTexts.keys()
  if (config !== undefined) {
    if (vm !== undefined) throw new UsageError('--vm', 'does not go with --config', 'Write all devices into the file.')
    const own = first ?? firstLink
    if (own !== undefined) throw new UsageError(`--${own}`, 'does not go with --config', 'Write it into the file.')
    return wantedIn(config)
  }
  const links = linksOf({ texts: linkTexts, ...ownOptions })
  if (vm === undefined) return { devices: settingsOfAll([{ texts, ...ownOptions }]), links }
  if (first !== undefined) throw new UsageError(`--${first}`, 'does not go with --vm', `Write ${first}=… into --vm.`)
  return { devices: settingsOfAll(vm.map(parseVm)), links }
}

/** What the file asks for, as SIGHUP reads it again. @throws UsageError */
export async function wantedIn(config: string): Promise<Wanted> {
  return wantedOf(await readConfig(config))
}

/** @throws UsageError */
export function wantedOf({ devices, links }: Config): Wanted {
  return { devices: settingsOfAll(devices), links: linksOf(links) }
}

function textsOf<Key extends string>(options: DeviceOptions, names: readonly Key[]): ReadonlyMap<Key, string> {
  const values = options as Readonly<Record<string, unknown>>
  const given = names.map((name) => [name, values[new Option(`--${name}`).attributeName()]] as const)
  return new Map(given.flatMap(([name, value]) => (value === undefined ? [] : [[name, String(value)]])))
}

const ownOptions: Omit<Given<KeyName | LinkKeyName>, 'texts'> = {
  nameOf: (key) => `--${key}`,
  error: (key, what, next, cause) => new UsageError(key === undefined ? '' : `--${key}`, what, next, cause),
}
