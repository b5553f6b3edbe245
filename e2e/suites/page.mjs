// The page of vmm-shim, with a simulated guest, in a headless Chromium: everything by keyboard, in light and dark, wide and narrow.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { AxeBuilder } from '@axe-core/playwright'
import { launch, openPage } from '../page/browser.mjs'
import { allStops, tabTo, type } from '../page/keyboard.mjs'
import { asAnotherClient, startShim, withShim } from '../page/shim.mjs'

const WIDE = { width: 1280, height: 800 }
const NARROW = { width: 360, height: 640 }
const LOOKS = [
  ['light', WIDE],
  ['dark', NARROW],
]

export async function run(checks, _image, { docs }) {
  const folder = mkdtempSync(join(tmpdir(), 'upcall-page-'))
  const browser = await launch()
  try {
    await whole(checks, browser, folder, docs)
    await checks.check('254 vCPUs are shown and resized, and the page is as wide as the window', () =>
      withShim(folder, 'many', ['--boot-ms', '100', '--max-cpus', '254'], (shim) => manyCpus(browser, shim)),
    )
    await checks.check('while the guest boots, the page says so, and why a change is refused', () =>
      withShim(folder, 'slow', ['--boot-ms', '60000'], (shim) => booting(browser, shim)),
    )
  } finally {
    await browser.close()
    rmSync(folder, { recursive: true, force: true })
  }
}

/** One visit, from the first look to the end of the program. Each check begins where the one before it ended. */
async function whole(checks, browser, folder, docs) {
  const shim = await checks.check('vmm-shim run --ui prints the address of its page', () =>
    startShim(folder, 'vm', '--boot-ms', '100'),
  )
  if (shim === undefined) return
  const steps = [
    ['the page shows a machine that runs, under a strict policy', shows],
    ['a person with a keyboard alone resizes the vCPUs', resizes],
    ['… adds a drive and a PCI device', adds],
    ['what is typed wrong is said before anything is asked, and is kept', typedWrong],
    ['a refused plug: the page alone says why, with the errno and what to do, once', refused],
    ['the bytes of a message are explained by the arrow keys and by the pointer', bytes],
    ['a removed row hands its focus on', removes],
    ['each stop of the Tab key has a ring that can be seen', rings],
    ['nothing moves for people who ask for less motion', still],
    ['what the guest alone has is marked, in words too', differs],
    ['after a 504 a reconcile is right there, and settles it', unknown],
    ...(docs ? [['screenshots for the documentation', pictures]] : []),
    ['a lost connection is said, and nothing is asked meanwhile', lost],
  ]
  const visit = { shim, ...(await openPage(browser, shim.url)) }
  try {
    for (const [name, step] of steps) await checks.check(name, () => step(visit))
    await checks.check('the page has no errors, keeps its policy, and asks no other origin', () =>
      assert.deepEqual(visit.faults, []),
    )
  } finally {
    await shim.stop()
  }
}

async function shows({ page, response }) {
  await page.getByRole('heading', { name: 'Machine', exact: true }).waitFor()
  await page.getByRole('banner').getByText('Ready', { exact: true }).waitFor()
  const policy = response.headers()['content-security-policy'] ?? ''
  assert.match(policy, /default-src 'none'/)
  assert.doesNotMatch(policy, /unsafe|\*|https?:/)
  assert.equal(await page.getByRole('img', { name: /^vCPUs[.] present: 0[.]/ }).count(), 1)
  assert.match(await page.getByRole('img', { name: /^The states of the session/ }).getAttribute('aria-label'), /Ready/)
  await isAccessible(page, 'fresh')
}

async function resizes({ page }) {
  await type(page, page.getByLabel('Number of vCPUs'), '4')
  await page.keyboard.press('Enter')
  await page.getByText('The machine has 4 vCPUs.').waitFor()
  await page.getByRole('img', { name: /^vCPUs[.] present: 0-3[.]/ }).waitFor()
}

async function adds({ page }) {
  await type(page, page.getByLabel('Id of the drive'), 'vdb')
  await type(page, page.getByLabel('File on this host').first(), '/srv/images/data.img')
  await page.keyboard.press('Enter')
  await page.getByText('The drive vdb is plugged in.').waitFor()
  await page.getByRole('button', { name: 'Remove vdb' }).waitFor()
  await type(page, page.getByLabel('Id of the device'), 'net1')
  await type(page, page.getByLabel('Address'), '00:05.0')
  await page.keyboard.press('Enter')
  await page.getByText('The PCI device net1 is plugged in.').waitFor()
  await page.getByRole('img', { name: /^slots[.] present: 05[.]/ }).waitFor()
}

async function typedWrong({ page }) {
  const input = page.getByLabel('Number of vCPUs')
  await input.focus()
  const before = await outcomeCount(page)
  await type(page, input, '99')
  await page.keyboard.press('Enter')
  await page.getByText('Enter a whole number from 1 to 8.').waitFor()
  assert.equal(await input.inputValue(), '99')
  assert.equal(await input.getAttribute('aria-invalid'), 'true')
  assert.equal(await outcomeCount(page), before)
  await type(page, input, '4')
}

async function refused({ page, shim }) {
  // Another client takes the window that the VMM would give the next drive.
  await asAnotherClient(shim.target, (manager) => manager.addMmio({ base: 0xd000_2000n, size: 0x2000n, irq: 7 }))
  await page.evaluate(() => {
    window.said = []
  })
  await type(page, page.getByLabel('Id of the drive'), 'vdc')
  await type(page, page.getByLabel('File on this host').first(), '/srv/images/other.img')
  await page.keyboard.press('Enter')
  const answer = page.getByRole('form', { name: 'Add a drive' }).locator('.answer')
  await answer.filter({ hasText: /refused/ }).waitFor()
  assert.match(await answer.textContent(), /EEXIST/)
  const outcome = page.locator('.outcomes li').first()
  await outcome.filter({ hasText: '−17 EEXIST' }).waitFor()
  assert.match(await outcome.textContent(), /refused[\s\S]*Everything is as it was before/)
  assert.equal(await page.getByLabel('Id of the drive').inputValue(), 'vdc')
  const said = await page.evaluate(() => window.said.filter((text) => text.includes('vdc')))
  assert.equal(said.length, 1, `said: ${said.join(' | ')}`)
  await isAccessible(page, 'refused')
}

async function bytes({ page }) {
  const field = (name) => page.locator('.fields > div', { has: page.locator(`dt code:text-is("${name}")`) })
  const list = page.getByRole('list', { name: /^Messages/ }).getByRole('button')
  await tabTo(page, list.first())
  await page.keyboard.press('Enter')
  const first = page.locator('.dump [data-begins="0"]')
  await tabTo(page, first)
  const names = await page.locator('.fields dt code').allInnerTexts()
  assert.ok(names.length >= 4, `fields: ${names}`)
  for (const name of names.slice(0, 4)) {
    await page.locator('.fields > div[data-lit]').waitFor()
    assert.equal(await field(name).getAttribute('data-lit'), 'true', name)
    const label = await page.evaluate(() => document.activeElement.getAttribute('aria-label'))
    assert.ok(label.startsWith(name), label)
    await page.keyboard.press('ArrowRight')
  }
  await page.keyboard.press('Home')
  await isAccessible(page, 'message open')
  await page.locator('.dump [data-begins="2"]').hover()
  assert.equal(await field(names[2]).getAttribute('data-lit'), 'true')
  await page.mouse.move(0, 0)
  await page.getByRole('button', { name: 'Follow the newest' }).click()
}

async function removes({ page }) {
  const focused = () =>
    page.evaluate(() => document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent)
  await page.getByLabel('Id of the drive').fill('vdc')
  await page.getByLabel('Id of the drive').press('Enter')
  const [first, second] = ['vdb', 'vdc'].map((id) => page.getByRole('button', { name: `Remove ${id}` }))
  await second.waitFor()
  await page.locator('#machine-title').evaluate(() => document.activeElement?.blur())
  await tabTo(page, first)
  await page.keyboard.press('Enter')
  await first.waitFor({ state: 'detached' })
  assert.equal(await focused(), 'Remove vdc')
  await page.keyboard.press('Enter')
  await second.waitFor({ state: 'detached' })
  assert.match(await focused(), /^Windows of virtio-mmio|Remove/)
}

async function rings({ page }) {
  for (const viewport of [WIDE, NARROW]) {
    await page.setViewportSize(viewport)
    const stops = await allStops(page)
    assert.ok(stops.length > 10, `${stops.length} stops`)
    assert.deepEqual(
      stops.filter(({ ring, isSeen }) => !ring || !isSeen),
      [],
    )
  }
  await page.setViewportSize(WIDE)
}

async function still({ page }) {
  await page.emulateMedia({ reducedMotion: 'reduce' })
  const moving = await page.evaluate(() =>
    [...document.querySelectorAll('*')]
      .filter((element) => {
        const { transitionDuration, animationName } = getComputedStyle(element)
        return animationName !== 'none' || transitionDuration.split(', ').some((each) => Number.parseFloat(each) > 0)
      })
      .map(({ className }) => className),
  )
  assert.deepEqual(moving, [])
  await page.emulateMedia({ reducedMotion: null })
}

async function differs({ page, shim }) {
  await asAnotherClient(shim.target, (manager) => manager.addMmio({ base: 0xd010_0000n, size: 0x2000n, irq: 9 }))
  await page.getByRole('heading', { name: 'The VMM and the guest differ' }).waitFor()
  await page.getByText('window 0xd0100000: the guest has it, the VMM does not').waitFor()
  await asAnotherClient(shim.target, (manager) => manager.removeMmio({ base: 0xd010_0000n, size: 0x2000n, irq: 9 }))
  await page.getByText('window 0xd0100000').waitFor({ state: 'detached' })
}

async function unknown({ page, shim }) {
  const { guestPid } = shim
  process.kill(guestPid, 'SIGSTOP')
  await page.getByLabel('Id of the drive').fill('vdd')
  await page.getByLabel('File on this host').first().fill('/srv/images/data.img')
  await page.getByLabel('Id of the drive').press('Enter')
  await page.getByRole('banner').getByText('Busy', { exact: true }).waitFor()
  process.kill(guestPid, 'SIGKILL')
  const outcome = page.locator('.outcomes li').first()
  await outcome.filter({ hasText: 'unknown' }).waitFor()
  await outcome.filter({ hasText: 'status 504' }).waitFor()
  await page.getByRole('heading', { name: 'The guest is dead' }).waitFor()
  await isAccessible(page, 'unknown')
  await tabTo(page, outcome.getByRole('button', { name: 'Reconcile' }))
  await page.keyboard.press('Enter')
  await page.locator('.outcomes').getByText('A new guest was started. The drive vdd is absent.').waitFor()
  await page.getByRole('banner').getByText('running', { exact: true }).waitFor()
  assert.equal(await page.getByRole('button', { name: 'Reconcile' }).count(), 0)
  assert.match(await page.evaluate(() => document.activeElement.id), /outcomes-title/)
}

async function lost({ page, shim }) {
  await shim.stop()
  await page.getByRole('heading', { name: 'The connection to vmm-shim is lost' }).waitFor()
  const input = page.getByLabel('Number of vCPUs')
  await input.focus()
  await type(page, input, '2')
  await page.keyboard.press('Enter')
  await page.getByText('There is no connection to vmm-shim. Nothing was asked.').first().waitFor()
  assert.equal(await input.inputValue(), '2')
  await isAccessible(page, 'lost')
}

async function pictures({ page }) {
  await type(page, page.getByLabel('Id of the drive'), 'vdb')
  await type(page, page.getByLabel('File on this host').first(), '/srv/images/data.img')
  await page.keyboard.press('Enter')
  await page.getByRole('button', { name: 'Remove vdb' }).waitFor()
  await page.evaluate(() => {
    document.activeElement?.blur()
    window.scrollTo(0, 0)
  })
  // Not where this run happens to be.
  await page.locator('header code').evaluate((element) => {
    element.textContent = 'hvsock:///tmp/vm.sock:219'
  })
  for (const [colorScheme, file] of [
    ['light', 'page.png'],
    ['dark', 'page-dark.png'],
  ]) {
    // biome-ignore format: two rows
    await page.emulateMedia({ colorScheme })
    await page.screenshot({ path: fileURLToPath(new URL(`../../docs/${file}`, import.meta.url)), animations: 'disabled' })
  }
  await page.emulateMedia({ colorScheme: 'light' })
}

async function manyCpus(browser, shim) {
  const { page, faults } = await openPage(browser, shim.url)
  await page.getByRole('banner').getByText('Ready', { exact: true }).waitFor()
  await page.getByLabel('Number of vCPUs').fill('254')
  await page.getByLabel('Number of vCPUs').press('Enter')
  await page.getByText('The machine has 254 vCPUs.').waitFor()
  const id = 'a'.repeat(64)
  await page.getByLabel('Id of the device').fill(id)
  await page.getByLabel('Id of the device').press('Enter')
  await page.getByRole('button', { name: `Remove ${id}` }).waitFor()
  // Each message makes a row, and each row is like the others: axe looks at the first ones. It takes long: in one of the two looks.
  await page.evaluate(() => {
    for (const row of document.querySelectorAll('.message-list li:nth-child(n + 20)')) row.hidden = true
  })
  await isAccessible(page, '254 vCPUs', [['dark', NARROW]])
  assert.deepEqual(faults, [])
}

async function booting(browser, shim) {
  const { page, faults } = await openPage(browser, shim.url)
  await page.getByRole('heading', { name: 'The guest boots' }).waitFor()
  await page.getByLabel('Number of vCPUs').fill('2')
  await page.getByLabel('Number of vCPUs').press('Enter')
  await page.locator('.outcomes li', { hasText: 'not done' }).waitFor()
  assert.deepEqual(faults, [])
}

async function outcomeCount(page) {
  return Number(await page.locator('#outcomes-title small').textContent())
}

/** The page has no frames, so the legacy mode, which opens no page of its own, finds the same. Lists of what is right are not needed. */
function axe(page) {
  return new AxeBuilder({ page })
    .setLegacyMode(true)
    .options({ resultTypes: ['violations'] })
    .analyze()
}

/** Without violations in light and dark, wide and narrow, and never wider than the window: at 200 % and 400 % of 1280, too. */
async function isAccessible(page, state, looks = LOOKS) {
  for (const [colorScheme, viewport] of looks) {
    // biome-ignore format: two rows
    await page.emulateMedia({ colorScheme })
    await page.setViewportSize(viewport)
    const { violations } = await axe(page)
    const found = violations.flatMap(({ id, nodes }) =>
      nodes.map(({ html, failureSummary }) => `${id}: ${html}\n${failureSummary}`),
    )
    assert.deepEqual(found, [], `${state}, ${colorScheme}, ${viewport.width}`)
  }
  for (const width of [320, 360, 640, 1280]) {
    await page.setViewportSize({ width, height: 640 })
    const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
    assert.equal(over, 0, `${state}: the page is ${over} pixels wider than a window of ${width}`)
  }
  await page.emulateMedia({ colorScheme: 'light' })
  await page.setViewportSize(WIDE)
}
