// Debian's Chromium, headless, and what each of its pages is watched for.
import { chromium } from 'playwright-core'
import { CHROMIUM } from '../tools.mjs'

export function launch() {
  // Chromium's own sandbox does not run as root.
  const args = process.getuid?.() === 0 ? ['--no-sandbox'] : []
  return chromium.launch({ executablePath: CHROMIUM, args })
}

/** A page, and everything that it should not do: errors, breaches of its policy, requests that leave its origin. */
export async function openPage(browser, url, options) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, colorScheme: 'light', ...options })
  const page = await context.newPage()
  page.setDefaultTimeout(15_000)
  const faults = []
  const { origin } = new URL(url)
  // A refused change and a lost connection are logged by the browser itself.
  const isExpected = (text) => /^Failed to load resource/.test(text)
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type()) && !isExpected(message.text())) faults.push(`console: ${message.text()}`)
  })
  page.on('pageerror', (error) => faults.push(`error: ${error.stack}`))
  page.on('request', (request) => {
    if (new URL(request.url()).origin !== origin) faults.push(`request: ${request.url()}`)
  })
  await page.exposeFunction('violated', (what) => faults.push(`policy: ${what}`))
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) =>
      window.violated(`${event.violatedDirective} ${event.blockedURI}`),
    )
    // Each text that the live region is given.
    window.said = []
    new MutationObserver(() => {
      const text = document.querySelector('[role=status]')?.textContent.trim()
      if (text && text !== window.said.at(-1)) window.said.push(text)
    }).observe(document, { subtree: true, childList: true, characterData: true })
  })
  const response = await page.goto(url)
  return { page, response, faults }
}
